"""What a person may write where a host is asked for: `box`, `me@box`, `box:2222`, `[::1]:22`,
`ssh://me@box:22`.

Everything else is refused before any program or shell sees it. A destination that begins with `-` would be
read as an option by ssh (`-oProxyCommand=…` runs a command), and one with shell characters could reach a
ProxyCommand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stackctl.errors import UsageError

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.\-]+)?")
_USER = re.compile(r"[A-Za-z0-9_.+@][A-Za-z0-9_.+@\\\-]*\$?")


@dataclass(frozen=True)
class Destination:
    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        if self.port is None:
            return user + self.host
        return f"{user}[{self.host}]:{self.port}" if ":" in self.host else f"{user}{self.host}:{self.port}"

    @property
    def words(self) -> str:
        """As it is typed after `ssh`, which takes no host:port."""
        user = f"{self.user}@" if self.user else ""
        return (f"-p {self.port} " if self.port else "") + user + self.host


def parse(text: str) -> Destination:
    """Raise UsageError for anything that is not plainly a destination."""
    body = text.removeprefix("ssh://").rstrip("/") if text.startswith("ssh://") else text
    user, at, rest = body.rpartition("@")
    host, port = _split_port(rest, text)
    if at and not _USER.fullmatch(user):
        raise _refusal(text, f"the user name '{user}' has characters that a user name cannot have")
    if not _HOST.fullmatch(host):
        why = "it begins with '-', which ssh would read as an option" if host.startswith("-") else ""
        raise _refusal(text, why or f"'{host}' is not a host name or address")
    return Destination(host, user if at else None, port)


def _split_port(rest: str, text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", rest)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
        if not port.isdigit():
            raise _refusal(text, f"'{port}' is not a port number")
    else:
        host, port = rest, None
    if port is not None and not 0 < int(port) < 65536:
        raise _refusal(text, f"{port} is not a port number (1 to 65535)")
    return host, int(port) if port is not None else None


def _refusal(text: str, why: str) -> UsageError:
    return UsageError(
        f"cannot use '{text}' as an ssh destination: {why}",
        fix="name it as in `ssh NAME`: host, user@host, or an alias from ~/.ssh/config",
    )
