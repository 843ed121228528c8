"""Consistent copies of live files: SQLite databases through SQLite's backup API, the rest byte by byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from stackctl.backup.sources import Source
from stackctl.errors import StackctlError

_MAGIC = b"SQLite format 3\0"
_SIDE_FILES = ("-wal", "-shm", "-journal")


def is_database(path: Path) -> bool:
    """By its first bytes, and because SQLite can read it: anybody can upload a file that begins like one."""
    try:
        with path.open("rb") as file:
            if file.read(16) != _MAGIC:
                return False
        with contextlib.closing(_reading(path)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    except OSError:
        return False
    return True


def _reading(path: Path, timeout: float = 30.0) -> sqlite3.Connection:
    """Whatever the name: in a URI `?`, `#` and `%` would name another file, which would be made."""
    quoted = urllib.parse.quote(os.fsencode(path.absolute()))
    return sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=timeout)


def files(source: Source) -> Iterator[tuple[Path, str]]:
    """Regular files of a source with their relative names, sorted; a database's side files belong to it."""
    for path, relative, mode in _walk(source):
        if not stat.S_ISREG(mode):
            continue
        owner = next(
            (path.with_name(path.name.removesuffix(end)) for end in _SIDE_FILES if path.name.endswith(end)),
            None,
        )
        if owner is None or not is_database(owner):
            yield path, relative


def folders(source: Source) -> Iterator[tuple[Path, str]]:
    """The source itself (as `.`) and every folder in it, also an empty one, parents first."""
    yield source.folder, "."
    for path, relative, mode in _walk(source):
        if stat.S_ISDIR(mode):
            yield path, relative


def links(source: Source) -> Iterator[tuple[Path, str]]:
    """Symbolic links, which are kept as links wherever they point to."""
    for path, relative, mode in _walk(source):
        if stat.S_ISLNK(mode):
            yield path, relative


def odd_files(source: Source) -> list[str]:
    """Sockets, pipes and devices: nothing that a copy could hold."""
    kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [relative for _, relative, mode in _walk(source) if not any(kind(mode) for kind in kinds)]


def _walk(source: Source) -> Iterator[tuple[Path, str, int]]:
    for root, names, others in os.walk(source.folder):
        names.sort()
        for name in sorted([*names, *others]):
            path = Path(root) / name
            relative = path.relative_to(source.folder).as_posix()
            if not source.wanted(relative):
                continue
            try:
                yield path, relative, path.lstat().st_mode
            except FileNotFoundError:
                continue  # gone since it was listed


def copy_file(path: Path, target: Path, *, vital: bool = False) -> str | None:
    """A `vital` database has to be whole. Of any other a note is returned when it is not: it is kept as it
    is."""
    note = None
    target.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat()
    if vital:
        copy_database(path, target)
    elif is_database(path):
        try:
            copy_database(path, target)
        except StackctlError as error:
            note = f"{error.what}; copied as it is"
            shutil.copyfile(path, target)
    else:
        shutil.copyfile(path, target)
    shutil.copystat(path, target)
    # The time of before: what is written while it is copied must not look like what was copied.
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    own_as(path, target)
    return note


def copy_database(path: Path, target: Path) -> None:
    """A snapshot of one instant, while others write."""
    try:
        with (
            contextlib.closing(_reading(path)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            [(verdict,)] = copy.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        raise StackctlError(f"database {path} cannot be copied: {error}") from error
    if verdict != "ok":
        raise StackctlError(f"database {path} is damaged: {verdict}")


def own_as(original: Path, copy: Path) -> None:
    if os.geteuid() == 0:
        found = original.lstat()
        os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)


def schema(path: Path) -> str | None:
    """The shape of a database, to tell whether somebody migrated it; None when it cannot be read."""
    try:
        with contextlib.closing(_reading(path, 5)) as database:
            rows = database.execute(
                "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
            ).fetchall()
            version = database.execute("PRAGMA user_version").fetchone()
            with contextlib.suppress(sqlite3.Error):
                rows += database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error:
        return None
    return repr((rows, version))
