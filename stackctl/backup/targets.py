"""Where backups go: a folder, an SFTP server, or a restic repository; one way to use them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from stackctl import durable
from stackctl.config.backup import BackupTarget
from stackctl.errors import StackctlError
from stackctl.operations import room
from stackctl.operations.context import Stack
from stackctl.operations.room import Need
from stackctl.runtime.command import CommandError, clean_environment, run

_NAME = re.compile(r"^(?P<stack>.+)-(?P<at>\d{8}T\d{6}Z)\.backup$")

# restic before 0.17 has no exit code of its own for it.
_NO_REPOSITORY = re.compile(
    r"repository does not exist|config file: .*(no such file|not exist|not found|404)", re.I
)


def time_of(name: str, stack: str) -> datetime | None:
    match = _NAME.match(name)
    if match is None or match["stack"] != stack:
        return None
    return datetime.strptime(match["at"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


class Target(Protocol):
    @property
    def label(self) -> str: ...

    def send(self, backup: Path) -> None: ...

    def names(self, stack: str) -> list[str]: ...

    def fetch(self, name: str, folder: Path) -> Path: ...

    def remove(self, name: str) -> None: ...


Within = Callable[[], float]
# What a transfer may take where no page sets its time: a first backup over a slow line takes a night.
A_DAY = 24 * 3600.0


def of(target: BackupTarget, within: Within = lambda: A_DAY) -> Target:
    if target.path is not None:
        return FolderTarget(target.path)
    if target.sftp is not None:
        return SftpTarget(target.sftp, target.identity)
    assert target.restic is not None and target.password_file is not None
    return ResticTarget(target.restic, target.password_file, within)


def places(stack: Stack, within: Within = lambda: A_DAY) -> list[Target]:
    """This host's own folder first, then every place of the stack file."""
    others = [of(place, within) for place in stack.config.backup.to]
    return [FolderTarget(stack.config.state_path / "backups"), *others]


class FolderTarget:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def label(self) -> str:
        return str(self.folder)

    def send(self, backup: Path) -> None:
        if backup.parent == self.folder:
            return
        draft = self.folder / f".{backup.name}.partial"
        try:
            room.refuse_unless_fits(
                [Need(self.folder, backup.stat().st_size, "the backup")],
                fix=f"make room under {self.folder}, or lower backup.keep",
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder, backup.name)
            shutil.copyfile(backup, draft)
            draft.chmod(0o600)
            durable.sync([draft])
            if _sha256(draft) != _sha256(backup):
                raise StackctlError(f"the copy in {self.folder} differs from the backup")
            os.replace(draft, self.folder / backup.name)
            durable.sync([self.folder])
        except OSError as error:
            raise StackctlError(f"cannot write to {self.folder}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                draft.unlink()

    def names(self, stack: str) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if time_of(path.name, stack))

    def fetch(self, name: str, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(self.folder / name, folder / name))

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


class SftpTarget:
    """The host key must be known already: a backup is not sent to whoever answers."""

    def __init__(self, address: str, identity: Path | None) -> None:
        match = re.fullmatch(r"(?:([^@]+)@)?([^@:/]+)(?::(\d+))?:(.+)", address)
        assert match is not None
        self._user, self._host, self._folder = match[1], match[2], match[4].rstrip("/")
        self._port = int(match[3] or 22)
        self._identity = identity
        self._address = address

    @property
    def label(self) -> str:
        return f"sftp {self._address}"

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        import paramiko

        client = paramiko.SSHClient()
        client.load_system_host_keys()
        extra = os.environ.get("STACKCTL_KNOWN_HOSTS")
        try:
            if extra:
                client.load_host_keys(extra)
            client.connect(
                self._host,
                self._port,
                self._user,
                key_filename=str(self._identity) if self._identity else None,
                timeout=15,
                banner_timeout=15,
                auth_timeout=15,
                channel_timeout=15,
                allow_agent=self._identity is None,
                look_for_keys=self._identity is None,
            )
            sftp = client.open_sftp()
            channel = sftp.get_channel()
            if channel is not None:
                channel.settimeout(60)
            yield sftp
        except (paramiko.SSHException, OSError, EOFError) as error:
            fix = None
            if "not found in known_hosts" in str(error):
                fix = f"ssh -p {self._port} {self._host} once, and check the key it shows"
            raise StackctlError(f"{self.label}: {error or type(error).__name__}", fix=fix) from error
        finally:
            client.close()

    def send(self, backup: Path) -> None:
        with self._connected() as sftp:
            self._make_folder(sftp)
            for name in _partials(sftp.listdir(self._folder), backup.name):
                sftp.remove(f"{self._folder}/{name}")
            draft = f"{self._folder}/.{backup.name}.partial"
            sftp.put(str(backup), draft, confirm=True)
            digest = hashlib.sha256()
            with sftp.open(draft, "rb") as file:
                file.prefetch()
                while chunk := file.read(1 << 18):
                    digest.update(chunk)
            if digest.hexdigest() != _sha256(backup):
                sftp.remove(draft)
                raise StackctlError(f"{self.label}: what arrived differs from the backup")
            sftp.posix_rename(draft, f"{self._folder}/{backup.name}")

    def _make_folder(self, sftp: Any) -> None:
        path = ""
        for part in self._folder.split("/"):
            path = f"{path}/{part}" if path or self._folder.startswith("/") else part
            if not part:
                path = ""
                continue
            try:
                sftp.stat(path)
            except FileNotFoundError:
                sftp.mkdir(path, 0o700)

    def names(self, stack: str) -> list[str]:
        with self._connected() as sftp:
            try:
                return sorted(name for name in sftp.listdir(self._folder) if time_of(name, stack))
            except FileNotFoundError:
                return []

    def fetch(self, name: str, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with self._connected() as sftp:
            sftp.get(f"{self._folder}/{name}", str(folder / name))
        return folder / name

    def remove(self, name: str) -> None:
        with self._connected() as sftp:
            sftp.remove(f"{self._folder}/{name}")


class ResticTarget:
    """restic keeps, deduplicates and prunes; the backup file goes in as it is."""

    def __init__(self, repository: str, password_file: Path, within: Within = lambda: A_DAY) -> None:
        self._within = within
        self._repository = repository
        self._password_file = password_file

    @property
    def label(self) -> str:
        return f"restic {self._repository}"

    def _restic(self, *argv: str, check: bool = True) -> str:
        if shutil.which("restic") is None:
            raise StackctlError("restic is not on the PATH", fix="apt-get install restic")
        base = ["restic", "--repo", self._repository, "--password-file", str(self._password_file), "--quiet"]
        extra = {
            name: value for name, value in os.environ.items() if name.startswith(("AWS_", "B2_", "RESTIC_"))
        }
        return run([*base, *argv], timeout=self._within(), env=clean_environment(extra), check=check).stdout

    def send(self, backup: Path) -> None:
        if not self._restic("cat", "config", check=False):
            self._restic("init")
        self._restic("backup", "--host", "stackctl", "--tag", backup.name, str(backup))

    def names(self, stack: str) -> list[str]:
        tags = {tag for snapshot in self._snapshots() for tag in snapshot.get("tags") or []}
        return sorted(tag for tag in tags if time_of(tag, stack))

    def fetch(self, name: str, folder: Path) -> Path:
        with tempfile.TemporaryDirectory(prefix=".restic-", dir=_made(folder)) as scratch:
            self._restic("restore", "latest", "--tag", name, "--target", scratch)
            [found] = Path(scratch).rglob(name)
            return found.replace(folder / name)

    def remove(self, name: str) -> None:
        ids = [str(snapshot["id"]) for snapshot in self._snapshots() if name in (snapshot.get("tags") or [])]
        if ids:
            self._restic("forget", "--prune", *ids)

    def _snapshots(self) -> list[dict[str, Any]]:
        """None in a repository that is not there yet; one that cannot be asked is an error."""
        try:
            found: list[dict[str, Any]] = json.loads(self._restic("snapshots", "--json") or "[]")
        except CommandError as error:
            if _NO_REPOSITORY.search(error.result.stderr):
                return []
            raise
        return found


def sweep(folder: Path, name: str) -> None:
    """Remove what writers of this stack's backups that were killed have left in a folder."""
    for found in _partials((path.name for path in folder.iterdir()), name):
        (folder / found).unlink(missing_ok=True)


def _partials(names: Iterable[str], name: str) -> list[str]:
    """Among `names` the drafts of backups of the stack that `name` is a backup of. Nobody writes one now:
    whoever makes or sends a backup holds the stack's lock."""
    match = _NAME.match(name)
    draft = (
        re.compile(rf"\.{re.escape(match['stack'])}-\d{{8}}T\d{{6}}Z\.backup\.partial(\.member)?")
        if match
        else None
    )
    return [found for found in names if draft and draft.fullmatch(found)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
