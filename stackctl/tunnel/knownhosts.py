"""Whom to believe: OpenSSH's known_hosts files, read with its rules, appended to with care.

Names may be patterns, hashed, negated or `[host]:port`; a line may be marked `@revoked` or `@cert-authority`.
A key is never added unless a person asked for it or their ssh configuration says `accept-new`.
"""

from __future__ import annotations

import base64
import fcntl
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostKeyLine:
    marker: str  # "" | "@revoked" | "@cert-authority"
    names: tuple[str, ...]
    kind: str
    blob: bytes
    where: str  # file:line

    def matches(self, name: str) -> bool:
        hit = False
        for pattern in self.names:
            if pattern.startswith("!"):
                if _one(pattern[1:], name):
                    return False
            elif _one(pattern, name):
                hit = True
        return hit


@dataclass(frozen=True)
class Verdict:
    """`state`: known | unknown | changed | revoked; `expected` are the lines that say otherwise."""

    state: str
    expected: tuple[HostKeyLine, ...] = ()


def _one(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        try:
            _, _, salt, digest = pattern.split("|")
            made = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(made, base64.b64decode(digest))
        except ValueError:
            return False
    # fnmatch would give [host]:port a meaning as a set of characters; OpenSSH knows * and ? alone.
    escaped = pattern.replace("[", "[[]")
    return fnmatch.fnmatchcase(name.lower(), escaped.lower())


def read(files: Iterable[Path]) -> list[HostKeyLine]:
    found = []
    for path in files:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            parsed = _parse(line, f"{path}:{number}")
            if parsed is not None:
                found.append(parsed)
    return found


def _parse(line: str, where: str) -> HostKeyLine | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3:
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except ValueError:
        return None
    return HostKeyLine(marker, tuple(fields[0].split(",")), fields[1], blob, where)


def lines_for(lines: Iterable[HostKeyLine], name: str) -> list[HostKeyLine]:
    return [line for line in lines if line.matches(name)]


def judge(lines: Iterable[HostKeyLine], name: str, kind: str, blob: bytes) -> Verdict:
    mine = lines_for(lines, name)
    if any(line.marker == "@revoked" and line.blob == blob for line in mine):
        return Verdict("revoked", tuple(line for line in mine if line.blob == blob))
    plain = [line for line in mine if not line.marker]
    if any(line.blob == blob for line in plain):
        return Verdict("known")
    # A host may have keys of several types; OpenSSH calls it changed when it knows any other key of the host.
    return Verdict("changed", tuple(plain)) if plain else Verdict("unknown")


def known_types(lines: Iterable[HostKeyLine], name: str) -> list[str]:
    kinds = [line.kind for line in lines_for(lines, name) if not line.marker]
    return list(dict.fromkeys(kinds))


def fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def line_text(name: str, kind: str, blob: bytes, *, hashed: bool) -> str:
    if hashed:
        salt = os.urandom(20)
        digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    return f"{name} {kind} {base64.b64encode(blob).decode()}"


def append(path: Path, line: str) -> None:
    """Add one line. Nothing is rewritten, and two writers cannot interleave."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = "\n" + line
        os.write(file.fileno(), line.encode() + b"\n")
