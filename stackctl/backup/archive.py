"""The backup file: a plain tar whose members are gzipped one by one, a manifest, and a seal over all of it.

Plain tools open it (`tar x`, `gunzip`). Damage is found and named: the manifest has a sha256 of every
member, and the last 512 bytes hold the sha256 of everything before them, so that no bit of the file is
unguarded.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackctl import durable
from stackctl.errors import StackctlError

MANIFEST = "manifest.json"
SCHEMA = 1
_SEAL = 512
_PREFIX = b"stackctl-backup-v1 sha256="


class BackupDamaged(StackctlError):
    """The file is not what was written; `damaged` names what is wrong in it."""

    def __init__(self, what: str, damaged: list[str]) -> None:
        super().__init__(what, fix="use another backup: stackctl backup list")
        self.damaged = damaged


@dataclass(frozen=True)
class Entry:
    path: str
    member: str
    size: int
    sha256: str
    stored_sha256: str
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Folder:
    """A folder of the data, also an empty one: as it was, for whom it was."""

    path: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Link:
    path: str
    target: str


class Writer:
    """Members as they come, then `finish`; nothing is at `path` before that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._draft = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(handle, "w+b")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        self._entries: list[Entry] = []
        self._folders: list[Folder] = []
        self._links: list[Link] = []

    def add_file(self, path: str, source: Path) -> None:
        found = source.lstat()
        spool = self._draft.with_name(f"{self._draft.name}.member")
        digest = hashlib.sha256()
        with (
            source.open("rb") as plain,
            spool.open("wb") as target,
            gzip.GzipFile("", "wb", 6, target, 0) as packed,
        ):
            while chunk := plain.read(1 << 20):
                digest.update(chunk)
                packed.write(chunk)
        with spool.open("rb") as packed_file:
            stored = hashlib.file_digest(packed_file, "sha256").hexdigest()
            packed_file.seek(0)
            self._member(f"{path}.gz", spool.stat().st_size, packed_file)
        spool.unlink()
        self._entries.append(
            Entry(
                path,
                f"{path}.gz",
                found.st_size,
                digest.hexdigest(),
                stored,
                found.st_mode & 0o777,
                found.st_uid,
                found.st_gid,
            )
        )

    def add_bytes(self, path: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self._member(path, len(data), io.BytesIO(data))
        self._entries.append(Entry(path, path, len(data), digest, digest))

    def add_folder(self, path: str, source: Path) -> None:
        found = source.lstat()
        self._folders.append(Folder(path, found.st_mode & 0o777, found.st_uid, found.st_gid))

    def add_link(self, path: str, target: str) -> None:
        self._links.append(Link(path, target))

    def finish(self, about: Mapping[str, Any]) -> Path:
        manifest = {
            "schema": SCHEMA,
            **about,
            "files": [vars(entry) for entry in self._entries],
            "folders": [vars(folder) for folder in self._folders],
            "links": [vars(link) for link in self._links],
        }
        raw = json.dumps(manifest, indent=1).encode()
        self._member(MANIFEST, len(raw), io.BytesIO(raw))
        self._tar.close()
        self._file.seek(0)
        seal = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.seek(0, os.SEEK_END)
        self._file.write(_seal(seal))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self.path)
        durable.sync([self.path.parent])
        return self.path

    def abandon(self) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)
        self._draft.with_name(f"{self._draft.name}.member").unlink(missing_ok=True)

    def _member(self, name: str, size: int, content: Any) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._tar.addfile(info, content)


def _seal(digest: str) -> bytes:
    return (_PREFIX + digest.encode() + b"\n").ljust(_SEAL, b"\0")


def verify(path: Path) -> dict[str, Any]:
    """The manifest of an undamaged backup; else BackupDamaged, which names the damaged files."""
    try:
        whole = path.stat().st_size
        with path.open("rb") as file:
            digest = _digest(file, max(0, whole - _SEAL))
            sealed = file.read(_SEAL)
    except OSError as error:
        raise StackctlError(f"cannot read {path}: {error.strerror}") from None
    if sealed != _seal(digest):
        damaged = _damaged_members(path) if whole > _SEAL else ["the end of the file"]
        damaged = damaged or ["the seal at the end of the file, or the space between members"]
        raise BackupDamaged(f"{path} is damaged: {', '.join(damaged)}", damaged)
    return read_manifest(path)


def _digest(file: Any, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(1 << 20, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _damaged_members(path: Path) -> list[str]:
    """Which members are not as the manifest says; what cannot be read at all is named by its place."""
    try:
        manifest = read_manifest(path)
    except StackctlError:
        return [MANIFEST]
    try:
        entries = [Entry(**data) for data in manifest["files"]]
    except TypeError:
        return [MANIFEST]  # readable, and yet not what was written: the name of a field is damaged
    with tarfile.open(path) as tar:
        members = _members(tar)
        return [entry.path for entry in entries if _stored_sha256(tar, members, entry) != entry.stored_sha256]


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """By name, in one pass, as far as their headers can be read: asked for one by one, each name would be
    looked for from the start."""
    found: dict[str, tarfile.TarInfo] = {}
    with contextlib.suppress(tarfile.TarError, OSError, EOFError, ValueError):
        for info in tar:
            found[info.name] = info
    return found


def _stored_sha256(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], entry: Entry) -> str:
    """Of what lies there in its place; nothing where it cannot be read."""
    try:
        member = tar.extractfile(members[entry.member])
        return hashlib.file_digest(member, "sha256").hexdigest() if member is not None else ""  # type: ignore[arg-type]
    except (tarfile.TarError, KeyError, OSError, EOFError, ValueError):
        return ""


def read_manifest(path: Path) -> dict[str, Any]:
    try:
        with tarfile.open(path) as tar:
            member = tar.extractfile(MANIFEST)
            manifest = json.loads(member.read()) if member is not None else None
    except (tarfile.TarError, KeyError, OSError, EOFError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or "files" not in manifest:
        raise BackupDamaged(f"{path} has no readable {MANIFEST}", [MANIFEST])
    if manifest.get("schema") != SCHEMA:
        raise StackctlError(f"{path} was written by a newer stackctl (schema {manifest.get('schema')})")
    return manifest


def read(path: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """One file's content, small ones."""
    for entry, content in contents(path, manifest):
        if entry.path == name:
            return content.read()
    raise StackctlError(f"{path} has no {name}")


def folders(manifest: Mapping[str, Any]) -> list[Folder]:
    return [Folder(**data) for data in manifest.get("folders", [])]


def links(manifest: Mapping[str, Any]) -> list[Link]:
    return [Link(**data) for data in manifest.get("links", [])]


def contents(path: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Entry, io.BufferedIOBase]]:
    with tarfile.open(path) as tar:
        members = _members(tar)
        for data in manifest["files"]:
            entry = Entry(**data)
            member = tar.extractfile(members[entry.member])
            assert member is not None
            packed = entry.member != entry.path
            yield entry, gzip.GzipFile(fileobj=member) if packed else member  # type: ignore[misc]


def unpack(entry: Entry, content: Any, target: Path) -> None:
    """Write one file where it belongs, and check what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise BackupDamaged(f"{entry.path} came out damaged", [entry.path])
    target.chmod(entry.mode)
    if os.geteuid() == 0:
        os.chown(target, entry.uid, entry.gid)
