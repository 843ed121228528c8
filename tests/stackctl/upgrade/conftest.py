"""A stack of stand-ins on the real Docker Engine, made in a moment and removed without a trace."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

BASE = os.environ.get("STACKCTL_BASE_IMAGE", "stackctl-base:bookworm")
STANDIN = Path(__file__).parent / "standin" / "server.py"
ROOT = Path(__file__).parents[3]


def docker(*argv: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=120, check=check)


def engine_answers() -> bool:
    return (
        shutil.which("docker") is not None and docker("image", "inspect", BASE, check=False).returncode == 0
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Stack:
    """A folder with a stack.yaml, and the stackctl of this checkout run in it."""

    folder: Path
    name: str
    services: tuple[str, ...]
    ports: Mapping[str, int]
    images: list[str] = field(default_factory=list)

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

    def build(self, service: str, mode: str, crash_after: float = 20) -> str:
        """Point the service's tag at an image that behaves like that; returns the image id."""
        tag = f"{self.name}-{service}:1"
        text = (
            f"FROM {BASE}\nCOPY server.py /server.py\n"
            f"ENV STANDIN_MODE={mode} STANDIN_CRASH_AFTER={crash_after}\n"
            f'LABEL stackctl.test={uuid.uuid4().hex}\nENTRYPOINT []\nCMD ["python3", "-u", "/server.py"]\n'
        )
        done = docker("build", "-q", "-t", tag, "-f", self._dockerfile(text), str(STANDIN.parent))
        self.images.append(done.stdout.strip())
        return done.stdout.strip()

    def _dockerfile(self, text: str) -> str:
        path = self.folder / "Dockerfile"
        path.write_text(text)
        return str(path)

    def write(self, **upgrade: object) -> None:
        def check(port: int, path: str) -> list[str]:
            url = f"http://127.0.0.1:{port}{path}"
            return ["python3", "-c", f"import urllib.request as u; u.urlopen('{url}', timeout=2)"]

        inside = {"engine": (11434, "/api/version"), "webui": (8080, "/health")}
        services = {
            name: {
                "enabled": True,
                "image": f"{self.name}-{name}:1",
                "port": self.ports[name],
                "start_grace": "40s",
                "healthcheck": check(*inside[name]),
            }
            for name in self.services
        }
        document = {
            "name": self.name,
            "runtime": "docker",
            "gpu": {"mode": "none"},
            "services": services,
            # Wide margins: the tests are about what is done with a verdict, on machines that are busy.
            "upgrade": {
                "stability": "2s",
                "healthy_within": "60s",
                "min_speed": 0.15,
                "max_first_token": 50,
                "probe_tokens": 4,
                **upgrade,
            },
        }
        (self.folder / "stack.yaml").write_text(yaml.safe_dump(document))

    def stackctl(self, *argv: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "stackctl"), *argv],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False,
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
        docker("compose", "-p", self.name, "down", "--volumes", "--timeout", "1", check=False)
        docker("compose", "-p", f"{self.name}-canary", "down", "--volumes", "--timeout", "1", check=False)
        listed = docker(
            "image", "ls", "-q", "--filter", "label=stackctl.test", f"stackctl-keep/{self.name}", check=False
        )
        for image in {*self.images, *listed.stdout.split()}:
            docker("image", "rm", "-f", image, check=False)


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[object]:
    if not engine_answers():
        pytest.skip(f"no Docker Engine with the image {BASE}")
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
