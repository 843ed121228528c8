"""A disk that is not mounted is not written to, however it is known that it should be."""

from pathlib import Path

import pytest

from stackctl.backup import mounts
from stackctl.config.backup import BackupTarget
from stackctl.errors import PreflightError


@pytest.fixture(autouse=True)
def no_fstab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mounts, "FSTAB", tmp_path / "fstab")
    return tmp_path / "fstab"


def test_as_the_stack_file_says(tmp_path: Path) -> None:
    folder = tmp_path / "usb" / "backups"
    with pytest.raises(PreflightError, match="nothing is mounted there") as caught:
        mounts.refuse_unmounted(BackupTarget(path=folder, mount=tmp_path / "usb"), tmp_path)
    assert caught.value.fix == f"mount {tmp_path}/usb"
    mounts.refuse_unmounted(BackupTarget(path=folder, mount=Path("/proc")), tmp_path)


def test_as_fstab_says(tmp_path: Path, no_fstab: Path) -> None:
    no_fstab.write_text(
        f"# a comment\nUUID=1 / ext4 defaults 0 1\nUUID=2 {tmp_path}/my\\040disk ext4 noauto 0 2\n"
        f"UUID=3 {tmp_path}/elsewhere ext4 defaults 0 2\nUUID=4 none swap sw 0 0\n"
    )
    for place in (BackupTarget(path=tmp_path / "my disk" / "b"), repository(tmp_path, tmp_path / "my disk")):
        with pytest.raises(PreflightError, match="my disk"):
            mounts.refuse_unmounted(place, tmp_path)
    mounts.refuse_unmounted(BackupTarget(path=tmp_path / "here"), tmp_path)
    mounts.refuse_unmounted(repository(tmp_path, "sftp:nas:/backups"), tmp_path)


def repository(tmp_path: Path, place: object) -> BackupTarget:
    return BackupTarget(restic=str(place), password_file=tmp_path / "password")


def test_as_it_was_the_last_time(tmp_path: Path) -> None:
    place = BackupTarget(path=tmp_path / "usb" / "backups")
    mounts.remember(place, tmp_path)
    assert not (tmp_path / mounts.FILE).exists(), "a folder that is not there was not written to"
    (tmp_path / "usb" / "backups").mkdir(parents=True)
    mounts.remember(place, tmp_path)
    mounts.refuse_unmounted(place, tmp_path)
    known = (tmp_path / mounts.FILE).read_text()
    assert f'"{mounts.mount_point(tmp_path)}"' in known
    (tmp_path / mounts.FILE).write_text(f'{{"{tmp_path}/usb/backups": "{tmp_path}/usb"}}')
    with pytest.raises(PreflightError, match="the last time"):
        mounts.refuse_unmounted(place, tmp_path)
