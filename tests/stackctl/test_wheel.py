"""The built wheel, installed in a fresh virtual environment, works in an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.support.stacks import environment_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the installed wheel. Its dependencies are those of this environment."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("stackctl", "compose", "procedures", "requirements"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "wheel", "--no-deps"]
    subprocess.run([*built, "--no-build-isolation", "-w", str(work), str(source)], check=True)
    # uv makes in a second what venv and pip make in twenty.
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "-q", "venv", "--python", sys.executable, work / "venv"], check=True)
    (wheel,) = work.glob("stackctl-*.whl")
    install = [uv, "-q", "pip", "install", "--python", work / "venv", "--no-index", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True)
    (site,) = (work / "venv" / "lib").glob("python*/site-packages")
    # After the wheel's own place on the path: what is installed there comes first.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    shutil.rmtree(source)
    return work / "venv" / "bin" / "stackctl"


def test_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [installed, *arguments],
            cwd=tmp_path,
            env=environment_for(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", "--name", "fresh", "--runtime", "docker")
    assert set(yaml.safe_load(run("render"))["services"]) == {"engine"}
    (tmp_path / "stack.yaml").write_text(
        "runtime: docker\nservices: {prometheus: {enabled: true}, grafana: {enabled: true}}\n"
    )
    assert "alerts.yml" in run("render", "--json")
    assert "bring-up" in run("procedures", "list")
    inside = run("config", "docs")
    assert "services" in inside
    where = subprocess.run(
        [installed.with_name("python"), "-c", "import stackctl; print(stackctl.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    ).stdout
    assert where.startswith(str(installed.parents[1]))


def test_it_packs_itself_again(installed: Path, tmp_path: Path) -> None:
    """What bootstrap takes to another host where there is no checkout to build from."""
    program = "import pathlib, sys; from stackctl.hosts import wheel; wheel.repack(pathlib.Path(sys.argv[1]))"
    python = installed.with_name("python")
    subprocess.run([python, "-c", program, tmp_path], cwd=tmp_path, check=True)
    (first,) = installed.parents[2].glob("stackctl-*.whl")
    (again,) = tmp_path.glob("*.whl")
    assert again.name == first.name
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(again) as other:
        assert sorted(other.namelist()) == sorted(one.namelist())
        for name in one.namelist():
            assert other.read(name) == one.read(name) or name.endswith("/RECORD"), name
        lines = [sorted(each.read(name).splitlines()) for each in (one, other) for name in each.namelist()
                 if name.endswith("/RECORD")]  # fmt: skip
        assert lines[0] == lines[1]
        assert any(name.endswith("_shipped/requirements/stackctl.txt") for name in one.namelist())
