"""The first `up` in an empty folder, with the real engine and no Docker: an answer of a model, and everything
after."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.engine import add_model
from tests.support.stacks import Folder, free_port, wait_for

pytestmark = pytest.mark.timeout(300)


def local(port: int, **more: object) -> dict[str, object]:
    return {"runtime": "local", "services": {"engine": {"port": port, **more}}}


@pytest.fixture
def up(folder: Folder) -> Folder:
    folder.write(local(free_port()))
    folder.ok("up")
    return folder


def test_from_nothing_to_an_answer_and_back(folder: Folder) -> None:
    port = free_port()
    folder.ok("init", "--name", folder.name, "--runtime", "local")
    path = folder.path / "stack.yaml"
    path.write_text(path.read_text().replace("port: 11434", f"port: {port}"))
    first = folder.ok("up", "--json").json
    assert first["runtime"] == "local" and first["urls"]["engine"] == f"http://127.0.0.1:{port}"
    assert first["model"] == "demo" and len(first["said"]) > 10
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5) as answer:
        assert "version" in json.load(answer)
    again = folder.ok("up", "--json").json
    assert (again["changed"], again["model"]) == (False, None) and again["token_seconds"] >= 0
    status = folder.ok("status", "--json").json
    assert status["schema"] == "stackctl.status/1"
    assert status["services"][0]["health"] == "healthy" and status["drift"] == []
    assert folder.run("plan", "--detailed-exitcode").code == 0
    folder.ok("down")
    assert folder.ok("status", "--json").json["services"] == []


def test_the_token_comes_from_a_model_that_writes(
    folder: Folder, chat_gguf: Path, embedding_gguf: Path
) -> None:
    """One that embeds is wanted, or loaded, or both: the one that can answer is asked all the same."""
    store = folder.path / "models"
    add_model(store, "embed", embedding_gguf)
    add_model(store, "chat", chat_gguf)
    wanted = {**local(free_port(), models_dir=str(store)), "models": ["library/embed"]}
    folder.write(wanted)
    for _ in range(2):
        up = folder.ok("up", "--json")
        assert "asking chat:latest for one token" in up.err
        assert up.json["token_seconds"] >= 0 and up.json["no_token"] is None
        folder.ok("models", "unload", "chat")
        folder.ok("models", "load", "embed")
        assert "embed:latest" in folder.ok("status").out
    folder.ok("models", "unload", "embed")
    wait_for(lambda: not folder.ok("status", "--json").json["models"], "it is out of memory")
    folder.ok("models", "rm", "chat", "--yes")
    alone = folder.ok("up")
    assert "none here writes text (embed:latest)" in alone.out and "no model yet" not in alone.out


def test_models_from_the_command_line(up: Folder) -> None:
    listed = up.ok("models", "list", "--json").json
    assert [model["name"] for model in listed["models"]] == ["demo:latest"]
    up.ok("models", "load", "demo")
    assert "loaded: demo:latest" in up.ok("status").out
    (model,) = up.ok("status", "--json").json["models"]
    assert (model["name"], model["gpu_bytes"]) == ("demo:latest", 0) and model["bytes"] > 1 << 20
    live = up.ok("top", "--once", "--json").json
    assert [one["name"] for one in live["models"]] == ["demo:latest"] and live["gpus"] == []
    figures = ("tokens_per_second", "prompt_tokens_per_second", "requests_per_second", "queue")
    assert all(live[name] >= 0 for name in figures), "the engine's metrics have other names"
    one = live["services"][0]
    assert one["cpu"] >= 0 and one["cpu_seconds"] > 0 and one["memory_limit"] > one["memory_bytes"]
    up.ok("models", "unload", "demo")
    wait_for(lambda: not up.ok("status", "--json").json["models"], "it is out of memory")
    assert "capabilities" in up.ok("models", "show", "demo").out
    missing = up.run("models", "show", "nobody")
    assert missing.code == 1 and "nobody" in missing.err and "Traceback" not in missing.err
    assert up.run("models", "rm", "demo").code == 2  # nobody is here to ask
    document = yaml.safe_load((up.path / "stack.yaml").read_text())
    up.write({key: value for key, value in document.items() if key != "name"} | {"models": ["demo"]})
    refused = up.run("models", "rm", "demo", "--yes")
    assert refused.code == 2 and "wanted by models:" in refused.err
    up.ok("models", "pin", "demo")
    pinned = yaml.safe_load((up.path / "stack.yaml").read_text())["models"][0]
    assert pinned["digest"].endswith(listed["models"][0]["digest"].removeprefix("sha256:"))
    assert up.ok("models", "sync", "--dry-run").out.strip() == "nothing to do"
    up.write({key: value for key, value in document.items() if key != "name"})
    assert up.ok("models", "sync", "--prune", "--dry-run").out.strip() == "remove demo:latest: not in models:"
    up.ok("models", "sync", "--prune", "--yes")
    assert up.ok("models", "list", "--json").json["models"] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("at", ["starting generation 1", "waiting for engine"])
def test_cut_off_at_any_point_a_second_up_succeeds(folder: Folder, at: str, number: signal.Signals) -> None:
    folder.write(local(free_port()))
    folder.cut_off("up", at=at, number=number)
    folder.ok("up")
    assert folder.ok("status", "--json").json["services"][0]["health"] == "healthy"


def test_a_killed_supervisor_is_shown_and_up_mends_it(up: Folder) -> None:
    lines = (up.state / "children.json").read_text()
    assert "engine" in lines
    wait_for(lambda: up.ok("status", "--json").json["services"][0]["state"] == "running", "it runs")
    supervisor = next(
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and str(up.state) in _command_line(entry) and "supervisor" in _command_line(entry)
    )
    os.kill(supervisor, signal.SIGKILL)
    assert up.ok("status", "--json").json["services"][0]["state"] == "exited"
    up.ok("up")
    assert up.ok("status", "--json").json["services"][0]["health"] == "healthy"


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_bad_setting_is_undone(up: Folder) -> None:
    before = up.ok("status", "--json").json
    document = yaml.safe_load((up.path / "stack.yaml").read_text())
    document["services"]["engine"]["limits"] = {"memory": "20m"}
    (up.path / "stack.yaml").write_text(yaml.safe_dump(document))
    done = up.run("up")
    assert done.code == 4, done.err
    assert "going back to generation" in done.err and "is healthy again" in done.err
    assert up.ok("status", "--json").json["generation"] == before["generation"]
