"""The speed gate on engines of known speed: slow is seen, and a host that is busy for a while is forgiven."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from stackctl.config.upgrade import UpgradeConfig
from stackctl.engine_api import EngineClient
from stackctl.upgrade import probe
from stackctl.upgrade.probe import Baseline, Measured
from tests.stackctl.upgrade.conftest import STANDIN
from tests.support.ports import free_port
from tests.support.stacks import wait_for

CONFIG = UpgradeConfig(probe_tokens=4)


@contextlib.contextmanager
def standin(mode: str) -> Iterator[EngineClient]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, STANDIN / "server.py"],
        env={**os.environ, "STANDIN_MODE": mode, "STANDIN_PORT": str(port)},
    )
    client = EngineClient(f"http://127.0.0.1:{port}")
    try:
        wait_for(client.alive, "the stand-in answers")
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def good() -> Iterator[EngineClient]:
    with standin("good") as client:
        yield client


def round_of(speed: float | None, first: float = 0.1) -> Measured:
    return Measured("p", "one two", 4, speed, first)


def test_a_slow_engine_is_seen_beside_a_good_one(good: EngineClient) -> None:
    with standin("slow") as slow:
        before, after = probe.in_turn(good, slow, "standin", CONFIG)
    [problem, *_] = probe.judge_speed(after, before, CONFIG)
    assert "tokens/s is 0." in problem and "at least 0.7" in problem
    assert not probe.judge_answers(after, before, CONFIG)


def test_an_engine_is_as_fast_as_itself(good: EngineClient) -> None:
    before, after = probe.in_turn(good, good, "standin", CONFIG)
    assert not probe.judge_speed(after, before, CONFIG)


def test_a_host_that_is_busy_for_a_while_is_waited_out(good: EngineClient) -> None:
    """The machine stalls both engines now and then: the best of several rounds does not show it."""
    idle = probe.measure(good, "standin", CONFIG)
    over = threading.Event()

    def stall() -> None:
        while not over.is_set():
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                pass
            over.wait(0.15)

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        busy = probe.measure(good, "standin", CONFIG)
    finally:
        over.set()
        thread.join()
    assert not probe.judge_speed(busy, idle, CONFIG)


def test_rounds_go_on_until_the_two_best_agree() -> None:
    assert not probe._settled([round_of(10), round_of(20), round_of(12)])
    assert probe._settled([round_of(10), round_of(20), round_of(19)])
    assert probe._settled([round_of(None), round_of(None)]), "an answer of one token has no speed"


def test_the_best_of_all_rounds_counts() -> None:
    best = probe.best_of([round_of(10, 0.3), round_of(None, 0.1), round_of(30, 0.2)])
    assert (best.tokens_per_second, best.first_token) == (30, 0.1)
    one, other = (Baseline("m", (round_of(speed),)) for speed in (10, 30))
    assert probe.better(one, other).probes[0].tokens_per_second == 30


def test_a_late_first_token_is_seen() -> None:
    old = Baseline("m", (round_of(10, 0.1),))
    late = Baseline("m", (replace(old.probes[0], first_token=0.6),))
    [problem] = probe.judge_speed(late, old, CONFIG)
    assert "first token after 0.60 s, before 0.10 s (at most 0.55 s)" in problem
    assert not probe.judge_speed(old, late, CONFIG)
