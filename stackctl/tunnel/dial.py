"""The byte stream below a session: a TCP connection of our own, or what a ProxyCommand gives.

Every address of a name is tried in turn, and whatever goes wrong is told as an error of the tunnel.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.sshconfig import SshSettings
from stackctl.tunnel.words import Words


def dial(settings: SshSettings) -> Way:
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    try:
        found = socket.getaddrinfo(
            settings.hostname,
            settings.port,
            families.get(settings.address_family, socket.AF_UNSPEC),
            socket.SOCK_STREAM,
        )
    except OSError as error:
        raise TunnelError(f"cannot find {settings.hostname}: {error.strerror or error}") from None
    reason: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            return Way(_dial_one(settings, family, kind, protocol, address))
        except OSError as error:
            reason = error
    raise TunnelError(f"cannot reach {settings.address}: {reason_of(reason)}") from None


def _dial_one(
    settings: SshSettings, family: int, kind: int, protocol: int, address: tuple[Any, ...]
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)  # fails for a family that the kernel does not have
    try:
        sock.settimeout(settings.connect_timeout)
        if settings.bind_address:
            sock.bind((settings.bind_address, 0))
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True)
class Way:
    """A byte stream to the server, and what whoever provides it has to say when it ends."""

    sock: socket.socket
    last_words: Callable[[], str] = lambda: ""


def through_command(command: str, under: list[Callable[[], None]]) -> Way:
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}"],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        stderr=subprocess.PIPE,
    )
    theirs.close()
    assert child.stderr is not None
    words = Words(child.stderr)

    def end() -> None:
        ours.close()
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        words.close(0.5)  # what it has left in the background may hold its stderr open

    def last_words() -> str:
        """Where to log in, perhaps: a helper that ends says so right before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)
            words.finish(1)
        return f"; its ProxyCommand said: {words.lines[-1]}" if words.lines else ""

    under.append(end)
    return Way(ours, last_words)


def reason_of(error: BaseException | None) -> str:
    """What happened, for a person."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, EOFError) or error is None:
        return "the connection was closed"
    return str(error) or type(error).__name__
