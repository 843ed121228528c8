"""What is known of how a container ended, from the engine's events in whatever order they come; and an engine
that stalls while it is asked."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from stackctl.config import StackConfig
from stackctl.errors import StackctlError
from stackctl.operations.gate import broken
from stackctl.runtime.base import ServiceStatus
from stackctl.runtime.docker.endings import Endings
from stackctl.runtime.docker.runtime import DockerRuntime

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def event(action: str, second: float, code: int | None = None) -> dict[str, Any]:
    attributes = {} if code is None else {"exitCode": str(code)}
    at = START + timedelta(seconds=second)
    return {
        "Action": action,
        "Actor": {"ID": "c", "Attributes": attributes},
        "timeNano": at.timestamp() * 1e9,
    }


@pytest.mark.parametrize(
    ("events", "code", "at_limit"),
    [
        ([event("die", 1, 3)], 3, False),
        ([event("oom", 1), event("die", 1.1, 137)], 137, True),
        ([event("die", 1, 137), event("oom", 1.1)], 137, True),
        ([event("oom", 1), event("die", 1.1, 137), event("die", 9, 0)], 0, False),
        ([event("die", 1, 137), event("oom", 60)], 137, False),
    ],
)
def test_the_last_end(events: list[dict[str, Any]], code: int, at_limit: bool) -> None:
    endings = Endings("t")
    endings.hear(events)
    found = endings.last("c", None)
    assert found is not None and (found.exit_code, found.at_memory_limit) == (code, at_limit)
    assert endings.last("another", START) is None


@pytest.mark.parametrize(
    ("exit_code", "oom", "says"),
    [
        (137, True, "was killed at its memory limit of 64 bytes (exit code 137) and was started again"),
        (1, True, "ended with exit code 1, after a part of it was killed at its memory limit of 64 bytes"),
        (137, False, "was killed (exit code 137), maybe at its memory limit of 64 bytes, and was started"),
        (0, False, "ended with exit code 0 and was started again"),
        (None, False, "ended and was started again"),
    ],
)
def test_an_end_is_told_as_far_as_it_is_known(exit_code: int | None, oom: bool, says: str) -> None:
    service = ServiceStatus(
        "engine", "running", "healthy", 2, memory_limit=64, exit_code=exit_code, oom_killed=oom, id="c"
    )
    assert says in str(broken(service, {"c": 1}))
    assert broken(service, {"c": 2}) is None, "it ended before we looked"
    assert says in str(broken(service, {"older": 2})), "a new one starts from nothing"


def test_an_engine_that_stalls_is_an_error_of_ours(tmp_path: Path) -> None:
    runtime = DockerRuntime(StackConfig(name="t"))
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        runtime._client = docker.DockerClient(f"unix://{path}", version="1.43", timeout=0.2)
        with pytest.raises(StackctlError, match="the Docker Engine stopped answering"):
            list(runtime.logs(["engine"]))
        runtime._client.close()
