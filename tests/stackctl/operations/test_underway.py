"""An upgrade that was cut off when it had proven itself: to look changes nothing, to work completes it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from stackctl.config import Loaded, StackConfig
from stackctl.errors import LockHeldError
from stackctl.operations import underway
from stackctl.operations.context import Stack
from stackctl.operations.underway import Underway
from stackctl.procedures import document, locate, registry, use
from stackctl.procedures.actions.going_back import GenerationArgs
from stackctl.procedures.context import Context
from stackctl.procedures.people import Person
from stackctl.procedures.plan import plan
from stackctl.procedures.stack_host import StackHost
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.local.runtime import LocalRuntime
from stackctl.runtime.lock import stack_lock
from stackctl.runtime.selection import Choice

PAGE = (
    "---\nid: demo\ntitle: T\nrequires: {settled: true}\n---\n```step\nid: a\ntitle: A\nrun: ['true']\n```\n"
)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Generation 2 has passed all its gates, and the upgrade to it was cut off before it was in force."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = StackConfig(name="t", data_dir=tmp_path / "data")
    loaded = Loaded(config, (tmp_path / "stack.yaml",), {})
    made = Stack(loaded, Choice("local", "test"), LocalRuntime(config), GenerationStore("t"))
    for text in ("old", "new"):
        files = {"processes.yaml": f'{{"services": {{}}, "is": "{text}"}}'}
        made.store.write(files, runtime="local", lock={}, meta={"digest": text, "services": []})
    old, _ = made.store.all()
    made.store.activate(old)
    underway.begin(made, Underway("upgrade", "a-run", 1, 2, None, switching=True, proven=2))
    return made


def in_force(stack: Stack) -> tuple[int | None, bool]:
    current = stack.store.current()
    return current.number if current else None, underway.read(stack) is not None


def test_a_plan_says_what_would_be_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    [ready, *_] = plan(locate.find("upgrade"), {}, StackHost(stack), tmp_path / "no-run")
    assert (ready.verdict, ready.detail) == ("already so", "generation 2 is healthy")
    plan(locate.find("rollback"), {}, StackHost(stack), tmp_path / "no-run")
    assert in_force(stack) == (1, True)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_plan_of_a_rollback_goes_by_what_will_be_in_force(stack: Stack, tmp_path: Path) -> None:
    context = Context(tmp_path / "no-run", lambda _text: None, host=StackHost(stack))
    found = registry.find("upgrade.target").function(context, GenerationArgs(generation=0))
    assert (found.data["generation"], found.data["came_from"]) == (1, 2)


def test_a_run_completes_it_under_the_lock(stack: Stack, tmp_path: Path) -> None:
    page = document.parse(PAGE)
    said: list[str] = []
    host, person = StackHost(dataclasses.replace(stack, say=said.append)), Person(say=said.append)
    unlocked = document.parse(PAGE.replace("requires", "lock: none\nrequires"))
    assert use.start(unlocked, {}, host, tmp_path / "runs", person).result == "done"
    assert in_force(stack) == (1, True), "one that does not hold the lock changes nothing"
    assert use.start(page, {}, host, tmp_path / "runs", person).result == "done"
    assert in_force(stack) == (2, False)
    assert any("generation 2 is put in force" in line for line in said)


def test_a_run_that_finds_the_lock_held_leaves_it(stack: Stack, tmp_path: Path) -> None:

    held, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with stack_lock("t"):
                os.write(held[1], b"x")
                os.read(done[0], 1)
        finally:
            os._exit(0)
    os.read(held[0], 1)
    try:
        with pytest.raises(LockHeldError):
            use.start(
                document.parse(PAGE), {}, StackHost(stack), tmp_path / "runs", Person(say=lambda _text: None)
            )
        assert in_force(stack) == (1, True)
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
