"""URLs and headers of stack.yaml that an HTTP client takes: what it does not must not wait for an alarm."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

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


HttpUrl = Annotated[str, Field(pattern=r"^https?://"), AfterValidator(_usable)]
Headers = Annotated[dict[str, str], AfterValidator(_sendable)]
