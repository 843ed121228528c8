"""A named Docker volume into one tar file and back, with any image that is here and nothing run inside it.

`docker cp` reads and writes through a container that is made and never started, so that no image needs tar.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from stackctl import durable
from stackctl.errors import PreflightError, StackctlError
from stackctl.runtime.command import clean_environment, run
from stackctl.runtime.guardian import afterwards


@contextlib.contextmanager
def _holder(volume: str, image: str) -> Iterator[str]:
    made = run(
        ["docker", "create", "--network", "none", "-v", f"{volume}:/volume", image, "true"], timeout=60
    )
    container = made.stdout.strip()
    try:
        yield container
    finally:
        run(["docker", "rm", "--force", container], timeout=60, check=False)


def users(volume: str) -> list[str]:
    listed = run(["docker", "ps", "--filter", f"volume={volume}", "--format", "{{.Names}}"], timeout=30)
    return listed.stdout.split()


def exists(volume: str) -> bool:
    return run(["docker", "volume", "inspect", volume], timeout=30, check=False).returncode == 0


def save(volume: str, path: Path, image: str) -> None:
    """A volume in use is copied while its containers are paused: as of one instant."""
    if not exists(volume):
        raise PreflightError(f"there is no volume {volume}", fix="docker volume ls")
    busy = users(volume)
    draft = path.with_name(f".{path.name}.partial")
    with _holder(volume, image) as container, _paused(busy):
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                _copy(["docker", "cp", f"{container}:/volume/.", "-"], stdout=file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    draft.replace(path)
    durable.sync([path.parent])


@contextlib.contextmanager
def _paused(containers: list[str]) -> Iterator[None]:
    """They go on afterwards, also when this process is killed."""
    if not containers:
        yield
        return
    with afterwards(["docker", "unpause", *containers]):
        run(["docker", "pause", *containers], timeout=60)
        yield


def load(volume: str, path: Path, image: str) -> None:
    """Into an empty volume only: mixing two states is worse than refusing."""
    if users(volume):
        raise PreflightError(f"volume {volume} is in use by {', '.join(users(volume))}", fix="stackctl down")
    if not exists(volume):
        run(["docker", "volume", "create", volume], timeout=60)
    with _holder(volume, image) as container:
        if _has_files(container):
            raise PreflightError(f"volume {volume} is not empty", fix=f"docker volume rm {volume}")
        with path.open("rb") as file:
            _copy(["docker", "cp", "--archive", "-", f"{container}:/volume"], stdin=file)


def _has_files(container: str) -> bool:
    """Told by the first of them: a full volume is not read to its end, and not into memory."""
    listing = subprocess.Popen(
        ["docker", "cp", f"{container}:/volume/.", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        process_group=0,
    )
    assert listing.stdout is not None
    try:
        with listing.stdout, tarfile.open(fileobj=listing.stdout, mode="r|") as found:
            return any(member.name.strip("./") for member in found)
    finally:
        listing.kill()
        listing.wait()


def _copy(argv: list[str], stdin: object = subprocess.DEVNULL, stdout: object = subprocess.DEVNULL) -> None:
    """However long it takes: how much there is to copy, its owner knows, and Ctrl-C ends it."""
    done = subprocess.run(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        check=False,
        process_group=0,  # Ctrl-C is for stackctl, which ends what it started in its own order
    )  # type: ignore[call-overload]
    if done.returncode != 0:
        raise StackctlError(f"{' '.join(argv[:2])}: {done.stderr.decode(errors='replace').strip()}")
