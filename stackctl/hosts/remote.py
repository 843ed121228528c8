"""Running a command on another host, with the system's own ssh.

A command there may ask for a passphrase, use a security key or share a connection: whatever works for `ssh
HOST` works here, because it is that. What stackctl adds: no option can hide in a host name, every word is
quoted for the far shell, unknown host keys are refused with the way to trust them, and a dead connection is
told from a failed command.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stackctl.tunnel.diagnosis import diagnose
from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.hosts import Host
from stackctl.tunnel.sshconfig import resolve, ssh_argv

#: Without a word of the shell's own when there is none: the exit code says it.
_FIND = 'PATH="$HOME/.local/bin:$PATH"; command -v stackctl >/dev/null || exit 127; exec stackctl "$@"'
#: ssh's own exit code: it could not connect, or lost the connection.
SSH_FAILED = 255


class ConnectionLost(TunnelError):
    """The connection broke while a command ran; whether the command still runs is another question."""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def argv(host: Host, words: Sequence[str], *, batch: bool, log: Path | None = None) -> list[str]:
    """The ssh command line that runs `words` on the host; ssh's own words go to `log`, if one is given."""
    settings = resolve(host.destination, host.entry.ssh_config)
    options = {
        "BatchMode": "yes" if batch else "no",
        "ConnectTimeout": str(round(settings.connect_timeout)),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "2",
        "RequestTTY": "no",
        "ClearAllForwardings": "yes",
    }
    line = ssh_argv(host.destination, host.entry.ssh_config)
    if log is not None:
        line += ["-E", str(log)]
    for option in (*settings.overrides, *(f"{name}={value}" for name, value in options.items())):
        line += ["-o", option]
    return [*line, "--", host.destination.host, shlex.join(words)]


def explain(host: Host, stderr: str) -> TunnelError:
    """ssh's own words as an error with a way out."""
    settings = replace(resolve(host.destination, host.entry.ssh_config), entry=host.name)
    error = diagnose(stderr.splitlines(), settings)
    return type(error)(
        f"cannot reach {host.name}: {error.what.removeprefix('ssh stopped: ')}",
        fix=error.fix or f"ssh {settings.typed}",
    )


def ask(
    host: Host, words: Sequence[str], *, timeout: float, input: str | None = None, batch: bool = True
) -> Answer:
    """Run to the end, without asking a person anything unless told to; raises when the host cannot be reached
    in time."""
    try:
        done = subprocess.run(
            argv(host, words, batch=batch),
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise TunnelError(f"cannot reach {host.name}: no answer within {timeout:g} s") from None
    if done.returncode == SSH_FAILED:
        raise explain(host, done.stderr)
    return Answer(done.returncode, done.stdout, done.stderr)


def program(host: Host) -> list[str]:
    """How stackctl is called there. A bootstrapped one is found although no login shell sets its PATH."""
    words = [host.entry.stackctl]
    if host.entry.stackctl == "stackctl":
        words = ["sh", "-c", _FIND, "stackctl"]
    return [*words, "-f", host.entry.stack_file] if host.entry.stack_file else words
