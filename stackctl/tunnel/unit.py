"""A systemd user unit that keeps a tunnel up across logins and reboots."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from stackctl.errors import StackctlError
from stackctl.runtime.command import clean_environment, run


def unit_name(tunnel: str) -> str:
    return f"stackctl-tunnel-{tunnel}.service"


def unit_path(tunnel: str) -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user" / unit_name(tunnel)


def render(tunnel: str, host: str, services: tuple[str, ...], stack_file: str | None) -> str:
    program = shutil.which("stackctl") or str(Path(sys.executable).with_name("stackctl"))
    words = [program]
    if stack_file:
        words += ["-f", str(Path(stack_file).absolute())]
    words += ["tunnel", "up", host, *services, "--foreground", "--persist"]
    command = " ".join(_quoted(word) for word in words)
    return f"""[Unit]
Description=stackctl tunnel to {host}
Documentation=man:ssh(1)
After=network.target

[Service]
Type=simple
ExecStart={command}
# 3: refused before anything was tried. A person has to look; trying again would only fill the journal.
RestartPreventExitStatus=2 3
Restart=always
RestartSec=5
NoNewPrivileges=yes
PrivateTmp=no
ProtectSystem=full
MemoryMax=512M
Environment=SSH_AUTH_SOCK=%t/ssh-agent.socket

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """As systemd.syntax(7) reads words: quotes for spaces, doubled percent and dollar signs."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{word}"' if " " in word else word


def install(tunnel: str, text: str) -> Path:
    path = unit_path(tunnel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if shutil.which("systemd-analyze"):
        run(["systemd-analyze", "verify", "--user", str(path)], timeout=30, check=False)
    if shutil.which("systemctl") is None:
        raise StackctlError(f"{path} is written, but there is no systemctl to enable it with")
    for words in (["daemon-reload"], ["enable", "--now", unit_name(tunnel)]):
        run(["systemctl", "--user", *words], timeout=60, env=clean_environment())
    return path
