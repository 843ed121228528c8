"""A stack of stand-ins on the real Docker Engine, made in a moment and removed without a trace."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from stackctl.engine_api import EngineClient
from tests.support.gates import refuse
from tests.support.ports import free_port
from tests.support.stacks import remove_images, remove_stale_images, wait_for

BASE = os.environ.get("STACKCTL_BASE_IMAGE", "stackctl-base:bookworm")
STANDIN = Path(__file__).parent / "standin"
DRIVER = Path(__file__).with_name("driver.py")
ROOT = Path(__file__).parents[3]
REPOSITORY = "stackctl-test-upgrade"


def docker(*argv: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=120, check=check)


@functools.cache
def image(mode: str, variant: int) -> str:
    """The tag of an image that behaves like that, built once for all tests; variants differ in their id."""
    files = sorted(STANDIN.iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    tag = f"{REPOSITORY}:{digest}-{mode}-{variant}"
    if docker("image", "inspect", tag, check=False).returncode == 0:
        return tag
    text = (
        f"FROM {BASE}\nCOPY server.py /server.py\nCOPY nvidia-smi /usr/local/bin/nvidia-smi\n"
        f"ENV STANDIN_MODE={mode}\nLABEL stackctl.test={variant}\n"
        'ENTRYPOINT []\nCMD ["python3", "-u", "/server.py"]\n'
    )
    subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-f", "-", str(STANDIN)],
        input=text, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    remove_stale_images()
    return tag


@dataclass
class Stack:
    """A folder with a stack.yaml, and the stackctl of this checkout run in it."""

    folder: Path
    name: str
    services: tuple[str, ...]
    ports: Mapping[str, int]
    variants: dict[str, int] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)  # service -> reference, where it is not our tag

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "NO_COLOR": "1",
        }

    @property
    def state(self) -> Path:
        return self.folder / "state" / "stackctl" / self.name

    @property
    def data(self) -> Path:
        return self.folder / "data" / "stackctl" / self.name

    def build(self, service: str, mode: str) -> str:
        """Point the service's tag at another image that behaves like that; returns the image id."""
        tag = f"{self.name}-{service}:1"
        # Three take turns, so that it is not the running one, also after the last one was taken back.
        variant = self.variants[service] = (self.variants.get(service, 2) + 1) % 3
        docker("tag", image(mode, variant), tag)
        return docker("image", "inspect", "--format", "{{.Id}}", tag).stdout.strip()

    def write(self, **upgrade: object) -> None:
        def check(port: int, path: str) -> list[str]:
            url = f"http://127.0.0.1:{port}{path}"
            return ["python3", "-c", f"import urllib.request as u; u.urlopen('{url}', timeout=2)"]

        inside = {"engine": (11434, "/api/version"), "webui": (8080, "/health")}
        services = {
            name: {
                "enabled": True,
                "image": self.images.get(name, f"{self.name}-{name}:1"),
                "port": self.ports[name],
                "start_grace": "40s",
                "stable_for": "500ms",  # of `up`; what an upgrade waits for is `stability`
                "healthcheck": check(*inside[name]),
            }
            for name in self.services
        }
        document = {
            "name": self.name,
            "runtime": "docker",
            "gpu": {"mode": "none"},
            "services": services,
            "upgrade": {"stability": "1s", "healthy_within": "60s", "probe_tokens": 4, **upgrade},
            **self.settings,
        }
        (self.folder / "stack.yaml").write_text(yaml.safe_dump(document))

    def stackctl(self, *argv: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "stackctl"), *argv],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def driven(self, moment: object, *argv: str) -> subprocess.CompletedProcess[str]:
        """`stackctl`, struck at a moment: see driver.py."""
        return subprocess.run(
            [sys.executable, str(DRIVER), str(moment), *argv],
            cwd=self.folder, env={**self.env, "PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip

    def up(self) -> None:
        done = self.stackctl("up")
        assert done.returncode == 0, done.stderr

    def running_image(self, service: str) -> str:
        done = docker("inspect", "--format", "{{.Image}} {{.State.Status}}", f"{self.name}-{service}-1")
        image, state = done.stdout.split()
        assert state == "running"
        return image

    @property
    def database(self) -> Path:
        return self.data / "webui" / "webui.db"

    def say(self, text: str) -> None:
        with sqlite3.connect(self.database) as database:
            database.execute("INSERT INTO chat (said) VALUES (?)", (text,))

    def said(self) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.database) as database:
            return database.execute("SELECT * FROM chat").fetchall()

    def remove(self) -> None:
        for project in (self.name, f"{self.name}-canary"):
            docker("compose", "-p", project, "down", "--volumes", "--timeout", "1", check=False)
        remove_images(f"{self.name}-*:1", f"stackctl-keep/{self.name}", f"*/{self.name}")


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[object]:
    if shutil.which("docker") is None or docker("image", "inspect", BASE, check=False).returncode != 0:
        refuse(f"no Docker Engine with the image {BASE}", "REQUIRE_DOCKER")
    made: list[Stack] = []

    def make(*services: str, **upgrade: object) -> Stack:
        name = f"up-{uuid.uuid4().hex[:8]}"
        folder = tmp_path / name
        folder.mkdir()
        stack = Stack(folder, name, services, {service: free_port() for service in services})
        made.append(stack)
        for service in services:
            stack.build(service, "good")
        stack.write(**upgrade)
        return stack

    yield make
    for stack in made:
        stack.remove()


@contextlib.contextmanager
def standin(mode: str, *, timeout: float = 10.0) -> Iterator[EngineClient]:
    """The stand-in as a process, without a container."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, STANDIN / "server.py"],
        env={**os.environ, "STANDIN_MODE": mode, "STANDIN_PORT": str(port)},
    )
    client = EngineClient(f"http://127.0.0.1:{port}", timeout=timeout)
    try:
        wait_for(client.alive, "the stand-in answers")
        yield client
    finally:
        process.kill()
        process.wait()
