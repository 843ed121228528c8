"""`down --volumes` removes what stackctl made, and nothing that a link leads to."""

from __future__ import annotations

from pathlib import Path

from tests.support.stacks import Folder


def filled(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "precious").write_text("x")
    return path


def test_data_goes_and_what_is_beside_it_stays(folder: Folder, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    filled(data / "models")
    filled(data / "photos")
    folder.write({"runtime": "local", "data_dir": str(data)})
    folder.ok("down", "--volumes", "--yes")
    assert not (data / "models").exists() and (data / "photos" / "precious").exists()


def test_nothing_is_removed_through_a_link(folder: Folder, tmp_path: Path) -> None:
    elsewhere = filled(tmp_path / "elsewhere" / "models").parent
    data = tmp_path / "mine"
    folder.write({"runtime": "local", "data_dir": str(data)})
    for link, target in ((data, elsewhere), (data / "models", elsewhere / "models")):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
        done = folder.run("down", "--volumes", "--yes")
        assert done.code == 3 and f"{link} is a link to {target}" in done.err and "fix: " in done.err
        assert (elsewhere / "models" / "precious").exists() and link.is_symlink()
        link.unlink()


def test_a_link_within_the_data_is_removed_and_not_followed(folder: Folder, tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "mine", filled(tmp_path / "elsewhere")
    filled(data / "models")
    (data / "models" / "big").symlink_to(elsewhere)
    folder.write({"runtime": "local", "data_dir": str(data)})
    folder.ok("down", "--volumes", "--yes")
    assert not (data / "models").exists() and (elsewhere / "precious").exists()


def test_a_restart_that_fails_is_recorded(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    assert folder.run("restart", "engine").code == 1
    last = folder.ok("history", "--json").json["entries"][-1]
    assert last["action"] == "restart" and last["result"].startswith("StackctlError")
