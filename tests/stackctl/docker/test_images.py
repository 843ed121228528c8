"""What an image reference means now, asked of the engine's socket, or of `docker` where there is none."""

from __future__ import annotations

import subprocess

import pytest

from stackctl.runtime.docker import asking, images
from tests.support.docker_api import ENGINE

pytestmark = pytest.mark.docker


def test_the_socket_and_the_program_say_the_same(standin_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["docker", "image", "inspect", "-f", "{{.Id}}", standin_image]
    number = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    references = (standin_image, f"docker.io/library/{standin_image}", number, "no/such:image", "Not A Name")
    expected = dict.fromkeys(references[:3], number)
    assert images.pins(references) == expected
    asked: list[str] = []

    def nowhere(reference: str) -> None:
        asked.append(reference)
        raise asking.NotHere

    monkeypatch.setattr(asking, "image", nowhere)
    assert images.pins(references) == expected
    assert set(asked) == set(references)


def test_another_machines_engine_is_asked_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asking.image("no/such:image") is None
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(asking.NotHere):
        asking.image("no/such:image")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{ENGINE}.none")
    with pytest.raises(asking.NotHere):
        asking.image("no/such:image")
