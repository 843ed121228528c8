"""Named volumes of a real Docker Engine into a tar file and back, owners and modes kept."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.backup import volumes
from stackctl.errors import PreflightError

pytestmark = pytest.mark.docker
IMAGE = os.environ.get("STACKCTL_BASE_IMAGE", "stackctl-base:bookworm")


def docker(*argv: str, check: bool = True) -> str:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=60, check=check).stdout


@pytest.fixture
def names() -> Iterator[list[str]]:
    try:
        docker("image", "inspect", IMAGE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no Docker Engine with the image {IMAGE}")
    made = [f"stackctl-test-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    yield made
    for name in made:
        docker("volume", "rm", "-f", name, check=False)


def in_volume(name: str, command: str) -> str:
    return docker("run", "--rm", "--network", "none", "-v", f"{name}:/v", IMAGE, "sh", "-c", command)


def test_there_and_back(names: list[str], tmp_path: Path) -> None:
    first, second = names
    in_volume(
        first, "mkdir /v/sub; echo hello > /v/sub/file; chown 1234:1235 /v/sub/file; chmod 640 /v/sub/file"
    )
    volumes.save(first, tmp_path / "v.tar", IMAGE)
    volumes.load(second, tmp_path / "v.tar", IMAGE)
    assert in_volume(second, "cat /v/sub/file; stat -c '%u:%g %a' /v/sub/file").split() == [
        "hello",
        "1234:1235",
        "640",
    ]
    with pytest.raises(PreflightError, match="not empty"):
        volumes.load(second, tmp_path / "v.tar", IMAGE)


def test_a_volume_that_is_not_there(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="there is no volume"):
        volumes.save(names[0], tmp_path / "v.tar", IMAGE)
    assert not (tmp_path / "v.tar").exists()
