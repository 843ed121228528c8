"""Folders, a real SFTP server (OpenSSH) and restic: sent whole, listed, fetched, removed."""

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from stackctl.backup import targets
from stackctl.config.backup import BackupConfig, BackupTarget
from stackctl.errors import StackctlError
from tests.support.ports import free_port

NAME = "bk-20261121T020000Z.backup"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(b"backup" * 50_000)
    return path


def there_and_back(target: targets.Target, backup: Path, tmp_path: Path) -> None:
    assert target.names("bk") == []
    target.send(backup)
    target.send(backup)
    assert target.names("bk") == [NAME] and target.names("other") == []
    assert target.fetch(NAME, tmp_path / "fetched").read_bytes() == backup.read_bytes()
    target.remove(NAME)
    assert target.names("bk") == []


def test_folder(tmp_path: Path, backup: Path) -> None:
    there_and_back(targets.of(BackupTarget(path=tmp_path / "disk")), backup, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, backup: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StackctlError, match="cannot write"):
        targets.of(BackupTarget(path=tmp_path / "file" / "x")).send(backup)


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed")
def test_restic(tmp_path: Path, backup: Path) -> None:
    password = tmp_path / "password"
    password.write_text("restic password")
    target = targets.of(BackupTarget(restic=str(tmp_path / "repository"), password_file=password))
    there_and_back(target, backup, tmp_path)


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        pytest.skip("sshd is not installed")
    port = free_port()
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    shutil.copy(tmp_path / "user_key.pub", tmp_path / "authorized_keys")
    Path("/run/sshd").mkdir(exist_ok=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host_key\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized_keys\nPasswordAuthentication no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    server = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
        public = (tmp_path / "host_key.pub").read_text().split()
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
        monkeypatch.setenv("STACKCTL_KNOWN_HOSTS", str(known))
        yield f"{getpass.getuser()}@127.0.0.1:{port}:{tmp_path}/remote/backups"
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.mark.peer
def test_sftp(sshd: str, tmp_path: Path, backup: Path) -> None:
    there_and_back(targets.of(BackupTarget(sftp=sshd, identity=tmp_path / "user_key")), backup, tmp_path)


@pytest.mark.peer
def test_sftp_to_an_unknown_host_is_refused(
    sshd: str, tmp_path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STACKCTL_KNOWN_HOSTS")
    with pytest.raises(StackctlError, match="not found in known_hosts") as caught:
        targets.of(BackupTarget(sftp=sshd, identity=tmp_path / "user_key")).send(backup)
    assert caught.value.fix is not None
    assert not (tmp_path / "remote").exists()


def test_bad_places_are_refused() -> None:
    for bad in (
        {},
        {"path": "/x", "sftp": "h:/x"},
        {"sftp": "no-colon"},
        {"restic": "/x"},
        {"sftp": "-o:/x"},
    ):
        with pytest.raises(ValidationError):
            BackupTarget.model_validate(bad)
    with pytest.raises(ValidationError):
        BackupConfig.model_validate({"recipients": ["age1short"]})
