"""Stacks for tests: a state of their own, free ports, the real command line, and a stand-in engine image."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gates import refuse
from tests.support.ports import free_port as free_port

PROGRAM = str(Path(sys.executable).parent / "stackctl")
BASE = "stackctl-base:bookworm"
STANDIN = Path(__file__).with_name("standin_engine.py")


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """The first true value; a failure that says what was waited for."""
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout:g} s: {what}")


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Folder:
    """A folder with a stack file, and stackctl as a person runs it there."""

    path: Path
    environment: dict[str, str]
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")

    def write(self, document: dict[str, Any], file: str = "stack.yaml") -> None:
        """`stable_for` is short unless a test is about it: to wait would be most of what the tests do."""
        services = {name: {"stable_for": "2s", **one} for name, one in document.get("services", {}).items()}
        whole = {"name": self.name, **document, **({"services": services} if services else {})}
        (self.path / file).write_text(yaml.safe_dump(whole))

    def run(self, *arguments: str, input: str | None = None, timeout: float = 170) -> Done:
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, input: str | None = None) -> Done:
        done = self.run(*arguments, input=input)
        assert done.code == 0, f"exit {done.code}\n{done.out}\n{done.err}"
        return done

    def cut_off(
        self, *arguments: str, at: str, number: signal.Signals, program: Sequence[str] = (PROGRAM,)
    ) -> int:
        """Run, and send a signal as soon as a line of stderr holds `at`."""
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        watchdog = threading.Timer(150, process.kill)
        watchdog.start()
        said = []
        for line in process.stderr:
            said.append(line)
            if at in line:
                process.send_signal(number)
                break
        else:
            raise AssertionError(f"'{at}' was never said:\n{''.join(said)}")
        with contextlib.suppress(ValueError):
            process.stderr.read()
        code = process.wait(30)
        watchdog.cancel()
        return code

    @property
    def state(self) -> Path:
        return Path(self.environment["XDG_STATE_HOME"]) / "stackctl" / self.name


def environment_for(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "DOCKER_HOST") if name in os.environ}
    return kept | {
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "NO_COLOR": "1",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Whatever is still up at the end is taken down."""
    here = tmp_path / "stack"
    here.mkdir()
    made = Folder(here, environment_for(tmp_path))
    yield made
    if (made.state / "generations").exists():
        made.run("down")


@pytest.fixture
def docker_folder(folder: Folder) -> Iterator[Folder]:
    yield folder
    subprocess.run(
        ["docker", "compose", "-p", folder.name, "down", "-t", "1", "--volumes", "--remove-orphans"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    remove_images(f"stackctl-keep/{folder.name}")


def remove_images(*references: str) -> None:
    """By name (`repository` or `repository:tag`, with * in it): what a test has tagged, and nothing else."""
    filters = [word for one in references for word in ("--filter", f"reference={one}")]
    command = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *filters]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if names := listed.stdout.split():
        subprocess.run(["docker", "image", "rm", *names], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def standin_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that answers like an engine, built from the local base in a second."""
    text = STANDIN.read_text()
    tag = f"stackctl-test-engine:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "standin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _quiet("docker", "image", "inspect", tag) == 0:
            return tag
        if _quiet("docker", "image", "inspect", BASE) != 0:
            refuse(f"there is no base image {BASE} (scripts/ci-base-image makes it)", "REQUIRE_DOCKER")
        context = tmp_path_factory.mktemp("standin")
        (context / "engine.py").write_text(text)
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\nLABEL stackctl.test=engine\nCOPY engine.py /engine.py\n"
            'CMD ["python3", "-u", "/engine.py"]\n'
        )
        done = subprocess.run(
            ["docker", "build", "-q", "-t", tag, str(context)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        remove_stale_images()
    return tag


def remove_stale_images() -> None:
    """Of older stand-ins: they are kept for the next run, and go a day after they were last built."""
    rules = ("--filter", "label=stackctl.test", "--filter", "until=24h")
    command = ["docker", "image", "prune", "--all", "--force", *rules]
    subprocess.run(command, capture_output=True, timeout=120, check=False)


def _quiet(*argv: str) -> int:
    return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode


def engine(image: str, port: int, mode: str = "", **more: Any) -> dict[str, Any]:
    """The stack file's part for one stand-in engine."""
    check = "import urllib.request as u; u.urlopen('http://127.0.0.1:11434/api/version', timeout=2)"
    service = {
        "image": image,
        "port": port,
        "healthcheck": ["python3", "-c", check],
        "start_grace": "20s",
        "environment": {"MODE": mode} if mode else {},
        **more,
    }
    return {
        "runtime": "docker",
        "gpu": {"mode": "none"},
        "services": {"engine": service},
        "models": ["stand-in"],
    }
