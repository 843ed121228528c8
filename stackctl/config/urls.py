"""URLs, origins, host names and headers of stack.yaml, as HTTP takes them: what it does not must not wait for
an alarm, or for somebody's browser."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

_ORIGIN_HOST = re.compile(r"[a-z0-9._-]+(:\d+)?|\[[0-9a-f:.]+\](:\d+)?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _usable(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ValueError(f"'{url}' is not a URL: {error}") from error
    if not whole or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"'{url}' is not a URL of printable ASCII characters with a host")
    return url


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"'{name}' is not the name of an HTTP header")
        if not value.isprintable() or any(ord(character) > 255 for character in value):
            raise ValueError(f"the header {name} has a line break or a character that HTTP cannot carry")
    return headers


def _origin(text: str) -> str:
    """As a browser writes it, because servers compare the whole text: no path, no port that is the usual."""
    _usable(text)
    parts = urlsplit(text.lower())
    usual = {"http": 80, "https": 443}[parts.scheme]
    if parts.path.strip("/") or parts.query or parts.username or not _ORIGIN_HOST.fullmatch(parts.netloc):
        raise ValueError(f"'{text}' is more than an origin, which is like https://llm.example.org:8444")
    return f"{parts.scheme}://{parts.netloc.removesuffix(f':{usual}')}"


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


HttpUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_usable)]
Headers = Annotated[dict[str, str], AfterValidator(_sendable)]
Origin = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_origin)]
Origins = Annotated[
    tuple[Origin, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
]
ServerName = Annotated[
    str, Field(pattern=r"^((\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])$")
]
