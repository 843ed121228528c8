"""Services that the host's own stackctl names."""

from __future__ import annotations

import dataclasses
import json

import pytest

from stackctl.runtime.base import PublishedPort, ServiceStatus
from tests.stackctl.tunnel.test_background import Laptop, laptop

__all__ = ["laptop"]
pytestmark = pytest.mark.peer


def stack_there(laptop: Laptop, ports: dict[str, int], code: int = 0) -> None:
    """The far side's stackctl answers as a stack does that publishes these ports."""
    services = [
        ServiceStatus(name, "running", "healthy", ports=(PublishedPort("127.0.0.1", port, port),))
        for name, port in ports.items()
    ]
    services.append(ServiceStatus("migrate", "exited"))
    document = {"schema": "stackctl.status/1", "services": [dataclasses.asdict(each) for each in services]}
    program = laptop.folder / "far-stackctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\nexit {code}\n")
    program.chmod(0o755)
    laptop.entry(stackctl=str(program))


def test_the_stack_there_says_what_it_has(laptop: Laptop) -> None:
    stack_there(laptop, {"webui": laptop.page})
    up = laptop.stackctl("tunnel", "up", "box", "--free-ports")
    assert "as the stack there says" in up.stderr
    forwards = laptop.status()["forwards"]
    assert [(f["service"], f["remote"]) for f in forwards] == [("webui", f"127.0.0.1:{laptop.page}")]
    no_api = laptop.stackctl("tunnel", "env", "box", code=1)
    assert "forwards no API (webui)" in no_api.stderr and "up box engine" in no_api.stderr


def test_a_service_that_it_does_not_have_is_refused(laptop: Laptop) -> None:
    stack_there(laptop, {"webui": laptop.page})
    refused = laptop.stackctl("tunnel", "up", "box", "comfyui", code=2)
    assert "'comfyui' is not a service that box offers (it has webui)" in refused.stderr


def test_without_a_stackctl_there_the_usual_ports_are_taken(laptop: Laptop) -> None:
    laptop.entry(stackctl=str(laptop.folder / "nothing"))
    up = laptop.stackctl("tunnel", "up", "box", "--free-ports", "--json")
    assert "the usual ports" in up.stderr
    found = {f["service"]: f["remote"] for f in json.loads(up.stdout)["forwards"]}
    assert found == {
        "engine": "127.0.0.1:11434",
        "gateway": "127.0.0.1:8800",
        "webui": "127.0.0.1:3000",
    }
