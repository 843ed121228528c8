"""A private folder for the sockets of an ssh child: short, ours alone, and swept when its owner was killed.

The path of a Unix socket has room for some hundred characters, and a temporary folder may be deeper than
that (macOS, a batch system, a test), so the shortest usual place that can be written to is taken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from stackctl.tunnel.errors import PermanentTunnelError

PREFIX = "stackctl-tunnel-"
#: sun_path has 104 bytes where it has fewest (macOS); Linux has 108.
LONGEST = 104


def private_folder() -> Path:
    """A new folder of ours alone (mode 0700) whose path is short enough for sockets within it."""
    _sweep()
    for base in _bases():
        # ssh makes the control socket under a longer name first.
        longest = len(str(base)) + len(f"/{PREFIX}{os.getpid()}-abcdefgh/control.{'x' * 16}")
        if longest < LONGEST and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
    raise PermanentTunnelError(
        f"there is no folder for ssh's sockets: a short, writable one is needed, and neither of "
        f"{', '.join(map(str, _bases()))} is",
        fix="TMPDIR=/tmp stackctl tunnel up HOST",
    )


def _bases() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [Path(runtime)] if runtime and Path(runtime).is_dir() else []
    return list(dict.fromkeys([*found, Path(tempfile.gettempdir()), Path("/tmp")]))


def _sweep() -> None:
    """Remove the folders of tunnels that were killed."""
    for folder in (folder for base in _bases() for folder in base.glob(f"{PREFIX}*-*")):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # A zombie still answers to its number, until its parent looks.
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
