"""A systemd user unit that keeps a tunnel up across logins and reboots.

What runs under the unit is stopped through systemd, which would start it again otherwise, and a tunnel in the
background makes room for the unit's.

Keys of an agent are there when the user manager knows SSH_AUTH_SOCK, as it does in a desktop session; a key
file without a passphrase always works.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from stackctl.errors import StackctlError
from stackctl.paths import program as program_path
from stackctl.runtime.command import clean_environment, run
from stackctl.tunnel import state

#: How long an installation waits for word of the tunnel.
START_WAIT = 15.0


def unit_name(tunnel: str) -> str:
    """`@` would make it an instance of a template, and brackets are not allowed at all."""
    return f"stackctl-tunnel-{re.sub('[^A-Za-z0-9_.-]+', '_', tunnel)}.service"


def unit_path(tunnel: str) -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user" / unit_name(tunnel)


def render(host: str, services: tuple[str, ...], stack_file: str | None) -> str:
    program = shutil.which("stackctl") or str(program_path())
    words = [program]
    if stack_file:
        words += ["-f", str(Path(stack_file).absolute())]
    words += ["tunnel", "up", host, *services, "--foreground", "--persist"]
    command = " ".join(_quoted(word) for word in words)
    return f"""[Unit]
Description=stackctl tunnel to {host}
After=network.target

[Service]
Type=simple
ExecStart={command}
# 2, 3: what cannot pass by itself. A person has to look; trying again would only fill the journal.
RestartPreventExitStatus=2 3
Restart=always
RestartSec=5
NoNewPrivileges=yes
# No ProtectSystem= and the like: in a user's unit they hide who owns the files of ssh, which it then refuses.
# The most that 2000 connections can hold whose readers have all stopped, and as much again.
MemoryMax=1G

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """As systemd.syntax(7) reads words: quotes for spaces, doubled percent and dollar signs."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{word}"' if " " in word else word


def is_installed(tunnel: str) -> bool:
    return unit_path(tunnel).exists()


def install(tunnel: str, text: str) -> tuple[Path, str]:
    """Write it, enable it, and start it anew; where it is, and what has become of the tunnel."""
    path = unit_path(tunnel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if shutil.which("systemctl") is None:
        raise StackctlError(
            f"{path} is written, but there is no systemctl to enable it with",
            fix=f"without systemd, start it from where your programs start: stackctl tunnel up {tunnel}",
        )
    _systemctl("daemon-reload")
    _systemctl("enable", unit_name(tunnel))
    if not _active(tunnel):
        state.stop(tunnel)  # in the background: it has the ports that the unit's needs
    _systemctl("restart", unit_name(tunnel))
    return path, _outcome(tunnel)


def _outcome(tunnel: str) -> str:
    """`up`, or why not yet; raises when it has ended for good."""
    deadline = time.monotonic() + START_WAIT
    while time.monotonic() < deadline:
        document = state.read(tunnel) if state.holder(tunnel) else None
        if document and document["state"] == "up":
            return "up"
        if document and document["state"] == "reconnecting":
            return f"not connected yet: {document['last_error']}"
        if not _active(tunnel):
            break
        time.sleep(0.1)
    else:
        return "not connected yet"
    raise StackctlError(
        f"{unit_name(tunnel)} is enabled, but it has ended",
        fix=f"journalctl --user -u {unit_name(tunnel)} -n 20",
    )


def stop(tunnel: str) -> bool:
    """End the tunnel that runs under its unit; False when there is none."""
    if not is_installed(tunnel) or not _active(tunnel):
        return False
    _systemctl("stop", unit_name(tunnel))
    return True


def uninstall(tunnel: str) -> bool:
    """End it and remove the unit; False when there is none."""
    path = unit_path(tunnel)
    if not path.exists():
        return False
    if shutil.which("systemctl"):
        _systemctl("disable", "--now", unit_name(tunnel))
    path.unlink()
    if shutil.which("systemctl"):
        _systemctl("daemon-reload")
    return True


def _active(tunnel: str) -> bool:
    """Whether systemd runs it, or will start it again in a moment."""
    if shutil.which("systemctl") is None:
        return False
    words = ["systemctl", "--user", "is-active", unit_name(tunnel)]
    said = run(words, timeout=30, env=clean_environment(), check=False)
    found = said.stdout.strip()
    if not found and state.holder(tunnel) is not None:
        reason = (said.stderr.strip().splitlines() or [f"exit {said.returncode}"])[-1]
        raise StackctlError(
            f"systemd does not say whether {unit_name(tunnel)} runs: {reason}",
            fix=f"as the user at a login of its own: systemctl --user stop {unit_name(tunnel)}",
        )
    return found in ("active", "activating", "reloading", "deactivating")


def _systemctl(*words: str) -> None:
    run(["systemctl", "--user", *words], timeout=100, env=clean_environment())
