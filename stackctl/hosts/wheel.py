"""The wheels of this very stackctl and of all it needs, for a host that may have no network.

A checkout builds its wheel. An installed stackctl is packed again from its own files: a wheel is nothing but
those files and a list of their hashes, and the lock of its dependencies is one of them.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import sys
import venv
import zipfile
from pathlib import Path

import stackctl
from stackctl.errors import PreflightError
from stackctl.runtime.command import run
from stackctl.shipped import folder as shipped_folder

SOURCE = Path(stackctl.__file__).resolve().parents[1]
#: What an installer adds beside the files of the wheel.
_ADDED = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json"})


def lock() -> Path:
    """The dependencies with their versions and hashes."""
    return shipped_folder("requirements") / "stackctl.txt"


def make_all(folder: Path, python_version: str, machine: str) -> None:
    """Put stackctl's own wheel and those it needs into the folder, for that Python on that machine."""
    pip = [*_pip(folder.parent), "-q", "--disable-pip-version-check"]
    if (SOURCE / "pyproject.toml").is_file():
        run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(SOURCE)], timeout=300)
    else:
        repack(folder)
    download = [*pip, "download", "--no-deps", "--require-hashes", "-r", str(lock()), "-d", str(folder)]
    download += ["--only-binary=:all:", "--python-version", python_version]
    for platform in (
        *(f"manylinux_2_{minor}_{machine}" for minor in (17, 28, 34)),
        f"manylinux2014_{machine}",
    ):
        download += ["--platform", platform]
    run(download, timeout=600)


def _pip(folder: Path) -> list[str]:
    """uv and pipx make environments without pip; Python itself carries one."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is None:
        raise PreflightError(
            f"{sys.executable} has neither pip nor ensurepip, and the dependencies are fetched with pip",
            fix="sudo apt-get install python3-venv",
        )
    place = folder / "pip"
    venv.create(place, with_pip=True)
    return [str(place / "bin" / "python"), "-m", "pip"]


def repack(folder: Path) -> Path:
    """The wheel that this stackctl was installed from."""
    distribution = importlib.metadata.distribution("stackctl")
    files = [
        file
        for file in distribution.files or ()
        if not {"..", "__pycache__"} & set(file.parts) and file.name not in _ADDED
    ]
    info = next((file.parent for file in files if file.name == "WHEEL"), None)
    if info is None or not lock().is_file():
        raise PreflightError(
            f"stackctl in {SOURCE} cannot be packed for another host: it was not installed from a wheel",
            fix="install it with pip, pipx or uv, or run bootstrap from a checkout of the project",
        )
    made = folder / f"stackctl-{distribution.version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            try:
                data = Path(str(file.locate())).read_bytes()
            except OSError as error:
                raise PreflightError(
                    f"the installation of stackctl in {SOURCE} is not whole: {error}",
                    fix=f"{sys.executable} -m pip install --force-reinstall stackctl",
                ) from None
            archive.writestr(str(file), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(data)}")
        name = f"{info}/RECORD"
        archive.writestr(name, "\n".join([*record, f"{name},,"]) + "\n")
    return made
