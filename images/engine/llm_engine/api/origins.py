"""Which web pages and which Host names may talk to the server: CORS and the guard against DNS rebinding.

Pure decisions; `llm_engine.api.gate` applies them. The lists are Ollama's, so that what works there works
here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from urllib.parse import urlsplit

import psutil

ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    "arch,async,custom-poll-interval,helper-method,lang,os,package-version,poll-helper,retry-count,"
    "runtime,runtime-version,timeout"
)
ALLOWED_HEADERS = ",".join(
    [
        "Authorization",
        "Content-Type",
        "User-Agent",
        "Accept",
        "X-Requested-With",
        "OpenAI-Beta",
        "X-Api-Key",
        "X-Request-Id",
        "Anthropic-Version",
        "Anthropic-Beta",
        "Anthropic-Dangerous-Direct-Browser-Access",
        *(f"x-stainless-{name}" for name in _STAINLESS.split(",")),
    ]
)
EXPOSED_HEADERS = "X-Request-Id,Retry-After,X-Queue-Length,X-Queue-Position,X-Context-Truncated"
_DEFAULTS = [
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"),
]


class Origins:
    """The `Origin` values that are let in."""

    def __init__(self, extra: tuple[str, ...]) -> None:
        self.patterns = [_pattern(origin) for origin in (*extra, *_DEFAULTS)]

    def allows(self, origin: str) -> bool:
        return any(pattern.fullmatch(origin) for pattern in self.patterns)


def _pattern(origin: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in origin.split("*")), re.IGNORECASE)


def same_origin(origin: str, host: str, scheme: str) -> bool:
    """A page that the server itself served may always call it."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # no address at all
        return False
    return parts.scheme == scheme and parts.netloc.lower() == host.lower()


def host_allowed(header: str) -> bool:
    """Whether `Host` names this machine rather than a name an attacker's DNS points at it."""
    host = _without_port(header).lower().rstrip(".")
    if host in ("", "localhost") or host == socket.gethostname().lower():
        return True
    if host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback or address.is_private or address.is_unspecified:
        return True
    return str(address) in _local_addresses()


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].split("]", 1)[0]
    return header.rsplit(":", 1)[0] if header.count(":") == 1 else header


@functools.lru_cache(maxsize=1)
def _local_addresses() -> frozenset[str]:
    return frozenset(
        address.address.split("%", 1)[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    )
