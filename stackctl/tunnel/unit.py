"""A systemd user unit that keeps a tunnel up across logins and reboots.

Keys of an agent are there when the user manager knows SSH_AUTH_SOCK, as it does in a desktop session; a key
file without a passphrase always works.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from stackctl.errors import StackctlError
from stackctl.paths import program as program_path
from stackctl.runtime.command import clean_environment, run


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
# 3: refused before anything was tried. A person has to look; trying again would only fill the journal.
RestartPreventExitStatus=2 3
Restart=always
RestartSec=5
NoNewPrivileges=yes
PrivateTmp=no
ProtectSystem=full
MemoryMax=512M

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
    if shutil.which("systemctl") is None:
        raise StackctlError(
            f"{path} is written, but there is no systemctl to enable it with",
            fix=f"without systemd, start it from where your programs start: stackctl tunnel up {tunnel}",
        )
    for words in (["daemon-reload"], ["enable", "--now", unit_name(tunnel)]):
        run(["systemctl", "--user", *words], timeout=60, env=clean_environment())
    return path
