"""Rotating a secret: it reaches what uses it, or the old one is back; and what cannot be rotated stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackctl.config import Loaded, StackConfig
from stackctl.errors import UnhealthyError, UsageError
from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.operations.rotation import rotate
from stackctl.procedures.actions import secrets
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args
from stackctl.procedures.stack_host import StackHost
from stackctl.render.processes import service_hash
from stackctl.runtime import audit
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.local.runtime import LocalRuntime
from stackctl.runtime.secrets import SecretStore
from stackctl.runtime.selection import Choice
from tests.support.stacks import free_port, wait_for

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


def test_an_interrupted_rotation_leaves_nothing_running_with_another_key(stack: Stack) -> None:
    hangs = f"time.sleep(600 if key != '{OLD}' else 0)"
    run(stack, free_port(), hangs)

    def interrupt() -> None:
        wait_for(lambda: said(stack)[-1] != f"key {OLD}", "the service starts with the new key")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    other = threading.Thread(target=interrupt)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            rotate(stack, "proxy_key")
    finally:
        signal.signal(signal.SIGINT, before)
        other.join()
    assert SecretStore("t").get("proxy_key").reveal() == OLD
    wait_for(lambda: len(said(stack)) == 3 and said(stack)[-1] == f"key {OLD}", "it has the old key again")


def killed_as_it_restarts(stack: Stack, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """In a forked process, as `kill -9` would have it: between the values and the services."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(stack.runtime, "restart", lambda _services: os.kill(os.getpid(), signal.SIGKILL))
        with contextlib.suppress(BaseException):
            act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_an_undo_that_was_killed_before_its_restart_is_ended_by_the_next(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stack, free_port())
    context = Context(stack.config.state_path / "run", lambda _text: None, host=StackHost(stack))
    aside = stack.config.state_path / "secrets.before-rotation"
    secrets.secrets_keep(context, Args())
    secrets.secrets_rotate(context, secrets.NamesArgs())
    new = SecretStore("t").get("proxy_key").reveal()
    assert new != OLD and said(stack)[-1] == f"key {new}"
    killed_as_it_restarts(stack, monkeypatch, lambda: secrets.secrets_put_back(context, Args()))
    assert SecretStore("t").get("proxy_key").reveal() == OLD and said(stack)[-1] == f"key {new}"
    assert secrets.secrets_put_back(context, Args()).detail == "old values are back; restarted: proxy"
    assert said(stack)[-1] == f"key {OLD}" and not aside.exists()


def test_what_was_refused_restarts_nothing(stack: Stack) -> None:
    run(stack, free_port())
    SecretStore("t").set("hf_token", "issued")
    context = Context(stack.config.state_path / "run", lambda _text: None, host=StackHost(stack))
    secrets.secrets_keep(context, Args())
    with pytest.raises(UsageError, match="issued by somebody else"):
        secrets.secrets_rotate(context, secrets.NamesArgs(names=("proxy_key", "hf_token")))
    assert secrets.secrets_put_back(context, Args()).detail == "old values are back; restarted: nothing"
    assert said(stack) == [f"key {OLD}"]


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
