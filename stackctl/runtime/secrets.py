"""The stack's secrets: one 0600 file each, made at random for every installation, given to services as files.

They never go into the rendered file, an environment that `docker inspect` shows, a log, or JSON.
"""

from __future__ import annotations

import os
import re
import secrets as randomness
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stackctl import paths
from stackctl.errors import UsageError
from stackctl.redact import Secret

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")


@dataclass(frozen=True)
class SecretInfo:
    name: str
    changed: datetime
    mode: int

    @property
    def safe(self) -> bool:
        return self.mode & 0o077 == 0


class SecretStore:
    def __init__(self, stack: str) -> None:
        self.folder = paths.state_dir(stack) / "secrets"

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if NAME.match(path.name))

    def info(self, name: str) -> SecretInfo:
        found = self._existing(name).stat()
        return SecretInfo(name, datetime.fromtimestamp(found.st_mtime, UTC), found.st_mode & 0o777)

    def path(self, name: str) -> Path:
        if not NAME.match(name):
            near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:60] or "my_token"
            raise UsageError(
                f"'{name}' is not a secret's name: lower case letters, digits and _",
                fix=f"stackctl secrets set {near}",
            )
        return self.folder / name

    def get(self, name: str) -> Secret:
        return Secret(self._existing(name).read_text().strip())

    def set(self, name: str, value: str) -> None:
        """Written aside and renamed: a reader sees the old value or the new one."""
        if not value.strip():
            raise UsageError(f"secret {name} would be empty")
        path = self.path(name)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        aside = self.folder / f".{name}.new"
        aside.unlink(missing_ok=True)
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        owner = path.stat() if path.exists() else None
        with os.fdopen(handle, "w") as file:
            file.write(value.strip() + "\n")
            file.flush()
            os.fsync(file.fileno())
        if owner and os.geteuid() == 0:
            os.chown(aside, owner.st_uid, owner.st_gid)
        aside.rename(path)

    def rotate(self, name: str) -> None:
        self._existing(name)
        self.set(name, generated())

    def ensure(self, names: tuple[str, ...], generate: frozenset[str]) -> list[str]:
        """Make those of `names` that are missing and may be made up; the rest has to be set by a person."""
        made = []
        for name in names:
            if self.path(name).exists():
                continue
            if name not in generate:
                raise UsageError(f"secret {name} has no value", fix=f"stackctl secrets set {name}")
            self.set(name, generated())
            made.append(name)
        return made

    def give_to(self, names: tuple[str, ...], uid: int, gid: int) -> None:
        """Containers run as `uid`: they must be able to read their own files, and nobody else."""
        if os.geteuid() != 0:
            return
        for name in names:
            os.chown(self.path(name), uid, gid)

    def _existing(self, name: str) -> Path:
        path = self.path(name)
        if not path.exists():
            there = ", ".join(self.names()) or "none"
            raise UsageError(f"no secret {name} (there: {there})", fix=f"stackctl secrets set {name}")
        return path


def generated() -> str:
    return randomness.token_urlsafe(32)
