"""Services that the host's own stackctl names, the shell's variables for them, a real engine behind them."""

from __future__ import annotations

import dataclasses
import http.client
import json
import subprocess
from itertools import islice

import pytest

from stackctl.runtime.base import PublishedPort, ServiceStatus
from tests.stackctl.tunnel.conftest import MakeTunnel, eventually
from tests.stackctl.tunnel.test_background import Laptop, laptop
from tests.support.engine import EngineServer
from tests.support.models import SENTENCE

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
    # The port was taken, so the browser is elsewhere than the web UI was told.
    assert f"add http://{forwards[0]['local']} to services.webui.origin" in up.stderr
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


def test_env_is_what_a_shell_can_eval(laptop: Laptop) -> None:
    down = laptop.stackctl("tunnel", "env", "box", code=1)
    assert "fix: stackctl tunnel up box" in down.stderr
    laptop.entry(forward={"engine": {"remote": laptop.page}, "gateway": {"remote": laptop.page}})
    up = laptop.stackctl("tunnel", "up", "box", "--json")
    local = {f["service"]: f["local"] for f in json.loads(up.stdout)["forwards"]}
    text = laptop.stackctl("tunnel", "env", "box").stdout
    said = subprocess.run(
        ["sh", "-c", f"{text}\nsh -c 'echo \"$OPENAI_BASE_URL $OLLAMA_HOST\"'"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said == [f"http://{local['gateway']}/v1", f"http://{local['engine']}"]


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_chat_of_a_real_engine_arrives_while_it_is_still_said(
    tunnel: MakeTunnel, engine: EngineServer, transport: str
) -> None:
    """The model never ends: whatever arrives has not waited for the end of the answer."""
    made = tunnel(int(engine.url.rpartition(":")[2]), transport=transport)
    connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=120)
    body = {"model": "endless", "messages": [{"role": "user", "content": "hi"}]}
    connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    tokens = [json.loads(line) for line in islice(answer, 60)]
    assert not any(token["done"] for token in tokens)
    texts = [token["message"]["content"] for token in tokens]
    assert "".join(texts).startswith(SENTENCE[:20])
    # How many tokens share a line is the engine's choice (this model outruns its HTTP side).
    assert all(texts)
    assert made.forwarder.active == 1
    # Hanging up passes through as well: the engine stops saying it.
    answer.close()
    connection.close()
    eventually(lambda: made.forwarder.active == 0, what="the end of the connection")
