"""Rotating a secret: it reaches what uses it, or the old one is back; and what cannot be rotated stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.config import Loaded, StackConfig
from stackctl.errors import UnhealthyError, UsageError
from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.operations.rotation import rotate
from stackctl.render.processes import service_hash
from stackctl.runtime import audit
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.local.runtime import LocalRuntime
from stackctl.runtime.secrets import SecretStore
from stackctl.runtime.selection import Choice
from tests.support.stacks import free_port

OLD = "the-first-key-of-all"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = StackConfig(name="t", data_dir=tmp_path / "data")
    loaded = Loaded(config, (tmp_path / "stack.yaml",), {})
    made = Stack(loaded, Choice("local", "test"), LocalRuntime(config), GenerationStore("t"))
    SecretStore("t").set("proxy_key", OLD)
    yield made
    made.runtime.down()


def run(stack: Stack, port: int, keeps: str = "") -> None:
    """A service that says its key, and listens when it takes it."""
    code = (
        f"import os, socket, time\nkey = os.environ['KEY']; print('key', key)\n{keeps}\n"
        f"held = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    )
    body = {
        "argv": [sys.executable, "-u", "-c", code],
        "environment": {},
        "secrets": ["proxy_key"],
        "secret_environment": {"KEY": "proxy_key"},
        "ports": [],
        "limits": {"memory": None, "cpus": None, "pids": 4096},
        "start_grace": 10,
        "stop_grace": 5,
        "health": {"tcp": port},
    }
    text = json.dumps({"services": {"proxy": {**body, "hash": service_hash(body)}}})
    made = stack.store.write({"processes.yaml": text}, runtime="local", lock={}, meta={"digest": text})
    stack.runtime.up(made)
    stack.store.activate(made)
    gate.wait_healthy(stack, ["proxy"])


def said(stack: Stack) -> list[str]:
    return [line.text for line in stack.runtime.logs(["proxy"]) if line.text.startswith("key ")]


def test_the_new_value_reaches_what_uses_it(stack: Stack) -> None:
    run(stack, free_port())
    assert rotate(stack, "proxy_key") == ["proxy"]
    new = SecretStore("t").get("proxy_key").reveal()
    assert said(stack) == [f"key {OLD}", f"key {new}"] and new != OLD
    (entry,) = audit.entries("t")
    assert (entry["result"], entry["secret"], entry["restarted"]) == ("ok", "proxy_key", ["proxy"])


def test_the_old_value_is_back_when_nothing_works_with_the_new_one(stack: Stack) -> None:
    run(stack, free_port(), f"if key != '{OLD}': raise SystemExit(1)")
    with pytest.raises(UnhealthyError, match="the old value is back"):
        rotate(stack, "proxy_key")
    assert SecretStore("t").get("proxy_key").reveal() == OLD
    assert said(stack)[-1] == f"key {OLD}"
    assert audit.entries("t")[-1]["result"].startswith("UnhealthyError: proxy ended")


@pytest.mark.parametrize(
    ("name", "database"),
    [("webui_admin_password", "webui/webui.db"), ("grafana_password", "grafana/grafana.db")],
)
def test_a_first_password_is_rotated_only_before_its_first_use(
    stack: Stack, name: str, database: str
) -> None:
    store = SecretStore("t")
    store.set(name, OLD)
    rotate(stack, name)
    fresh = store.get(name)
    assert fresh.reveal() != OLD
    path = stack.config.data_path / database
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UsageError, match="has one") as caught:
        rotate(stack, "proxy_key", name)
    assert f"stackctl secrets set {name}" in (caught.value.fix or "")
    assert store.get(name) == fresh and store.get("proxy_key").reveal() == OLD
