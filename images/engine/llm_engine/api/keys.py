"""API keys for a server used without a gateway: named, stored as hashes, reloaded when the file changes.

A key is 32 random bytes, so one SHA-256 is enough to store it. Every entry is compared in constant time
and all of them are compared always. A file that cannot be read keeps the keys read before: a half-saved
edit must neither lock everybody out nor let anybody in; at start it is an error.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("llm_engine.api.keys")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64})\s+sha256:([0-9a-f]{64})")


class KeysFileError(ValueError):
    """The keys file cannot be used; the message names the line."""


def new_key() -> str:
    return f"sk-{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def line_for(name: str, key: str) -> str:
    return f"{name} sha256:{hash_key(key)}"


def read_keys(path: Path) -> dict[str, str]:
    """Name to hash. Lines are `name sha256:<hex>`; blank lines and `#` comments are skipped."""
    keys: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"keys file {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise KeysFileError(f'keys file {path}, line {number}: expected "name sha256:<64 hex digits>"')
        if match[1] in keys:
            raise KeysFileError(f'keys file {path}, line {number}: name "{match[1]}" is used twice')
        keys[match[1]] = match[2]
    return keys


def add(path: Path, name: str) -> str:
    """Makes a key, adds its hash to the file, and returns the key: it is written nowhere else."""
    key = new_key()
    line = line_for(name, key)
    if _LINE.fullmatch(line) is None:
        raise KeysFileError(
            f'key name "{name}": use letters, digits, dots, dashes and underscores, at most 64'
        )
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    _replace(path, f"{before}{line}\n")
    return key


def remove(path: Path, name: str) -> None:
    if name not in read_keys(path):
        raise KeysFileError(f'keys file {path}: there is no key "{name}"')
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    _replace(path, "".join(line for line in lines if line.split(maxsplit=1)[:1] != [name]))


def _replace(path: Path, text: str) -> None:
    """At once or not at all, and readable by the owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class KeyRing:
    """The keys of one file, as it is now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = self._stamp()
        self.keys = read_keys(path)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            self.keys = read_keys(self.path)
            log.info("keys reloaded", extra={"data": {"count": len(self.keys)}})
        except KeysFileError as error:
            log.error(
                "keys file is unusable, keeping the keys read before", extra={"data": {"reason": str(error)}}
            )

    def name_of(self, presented: str) -> str | None:
        """Whose key this is, or None."""
        self.refresh()
        digest = hash_key(presented)
        found: str | None = None
        for name, expected in self.keys.items():
            if hmac.compare_digest(digest, expected):
                found = name
        return found


def presented_key(headers: Mapping[str, str]) -> str:
    """The key a request carries: `Authorization: Bearer` (OpenAI, Ollama) or `x-api-key` (Anthropic)."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip()
