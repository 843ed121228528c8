"""A disk that can be filled for real: a small file system of the test's own, in a namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.gates import need_program, refuse

_MOUNT = 'mount -t tmpfs -o size=24m none "$1" && shift && exec "$@"'


def on_a_small_disk(disk: Path) -> list[str]:
    """What a command begins with that is to find 24 MiB at `disk`, an empty folder."""
    command = [need_program("unshare"), "--mount", "--map-root-user", "sh", "-c", _MOUNT, "sh", str(disk)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        refuse("no file system can be mounted in a namespace of one's own here", "REQUIRE_PEERS")
    return command
