"""The speed gate on engines of known speed: slow is seen, and a host that is busy for a while is forgiven."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from stackctl.config.upgrade import UpgradeConfig
from stackctl.engine_api import EngineClient
from stackctl.upgrade import probe
from stackctl.upgrade.probe import Baseline, Measured
from tests.stackctl.upgrade.conftest import standin

CONFIG = UpgradeConfig(probe_tokens=4)


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


def brief(speed: float, seconds: float) -> Measured:
    return replace(round_of(speed, 0.0), whole=speed, seconds=seconds)


def test_an_answer_that_comes_in_one_burst_is_judged_by_the_whole_of_it() -> None:
    """Between its first and its last piece there is no time to tell, and it differs a thousandfold."""
    burst = [replace(brief(500, 0.005), tokens_per_second=speed) for speed in (900, 300_000)]
    even = [replace(brief(480, 0.005), tokens_per_second=700)] * 2
    old, new = (Baseline("m", (probe.summary(rounds),)) for rounds in (burst, even))
    assert old.probes[0].brief and not probe.judge_speed(new, old, CONFIG)
    late = Baseline("m", (probe.summary([brief(90, 0.05)]),))
    [problem] = probe.judge_speed(late, old, CONFIG)
    assert "90.0 tokens/s is 0.18 of the old 500.0" in problem
    lasting = Baseline("m", (probe.summary([brief(speed, 2.0) for speed in (20, 60, 61)]),))
    assert not lasting.probes[0].brief and lasting.probes[0].tokens_per_second == 61


def test_brief_answers_are_asked_for_until_there_is_enough_of_them(good: EngineClient) -> None:
    """Four words last 0.08 s: more words, many answers, and the verdict says how much it was."""
    before, after = probe.in_turn(good, good, "standin", CONFIG)
    assert before.probes[0].seconds >= probe.ENOUGH and before.probes[0].tokens > CONFIG.probe_tokens
    [problem] = probe.judge_speed(after, slower(before), CONFIG)
    assert f"s of {after.probes[0].tries} answers" in problem
    one = probe.in_turn(good, good, "standin", UpgradeConfig(probe_tokens=1))[0].probes[0]
    assert one.tries == probe.IN_TURN and one.whole is None, "one token has no speed, however often"


def slower(baseline: Baseline) -> Baseline:
    speed = baseline.probes[0].whole
    assert speed is not None
    return Baseline("m", (replace(baseline.probes[0], whole=speed * 2),))


def test_what_is_clear_needs_no_more_tries() -> None:
    fast, slow, noisy = ([brief(base + n, 0.01) for n in range(5)] for base in (100, 40, 60))
    assert probe._clear(fast, slow) and probe._clear(slow, fast)
    assert not probe._clear(fast, noisy) and not probe._clear(fast, slow[:4])
    assert probe._clear([brief(100, 0.5)] * 2, [brief(90, 0.5)] * 2), "both have lasted"


def test_where_the_limit_cuts_an_answer_off_more_tokens_are_asked_for() -> None:
    cut = [replace(brief(1000, 0.05), tokens=48)] * 2
    assert probe._longer(48, cut) == 480
    ended = [replace(cut[0], tokens=12)] * 2
    assert probe._longer(48, ended) == 48, "it has no more to say"
    assert probe._longer(48, [replace(cut[0], seconds=1.0)] * 2) == 48, "it lasts"
    assert probe._longer(900, [replace(cut[0], tokens=900)] * 2) == probe.MOST_TOKENS


def test_a_late_first_token_is_seen() -> None:
    old = Baseline("m", (round_of(10, 0.1),))
    late = Baseline("m", (replace(old.probes[0], first_token=0.6),))
    [problem] = probe.judge_speed(late, old, CONFIG)
    assert "first token after 0.60 s, before 0.10 s (at most 0.55 s)" in problem
    assert not probe.judge_speed(old, late, CONFIG)
