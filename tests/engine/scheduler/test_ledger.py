"""No byte of a GPU is promised twice, however the driver's figure moves meanwhile."""

from __future__ import annotations

from llm_engine.scheduler.ledger import Ledger
from llm_engine.scheduler.memory import Gpu


def gpu(free: int, index: int = 0) -> Gpu:
    return Gpu(index, "g", 24, free)


def left(ledger: Ledger, free: int, index: int = 0) -> int:
    return ledger.available([gpu(free, index)])[0].free


def test_two_loads_that_begin_together() -> None:
    ledger = Ledger()
    assert left(ledger, 24) == 24
    ledger.promise("a", {0: 10}, [gpu(24)])
    for taken in (0, 4, 10):
        assert left(ledger, 24 - taken) == 14, "what has been taken already is not counted twice"
    ledger.promise("b", {0: 10}, [gpu(20)])
    assert left(ledger, 20) == 4


def test_one_that_is_done_while_another_loads() -> None:
    ledger = Ledger()
    ledger.promise("a", {0: 10}, [gpu(24)])
    ledger.promise("b", {0: 10}, [gpu(24)])
    ledger.loaded("a")
    assert left(ledger, 13) == 4  # nine of those that are gone are a's, or b's
    ledger.loaded("b")
    assert left(ledger, 5) == 5  # nobody loads: the driver knows


def test_a_load_that_fails_gives_back() -> None:
    ledger = Ledger()
    ledger.promise("a", {0: 10}, [gpu(24)])
    ledger.promise("b", {0: 10}, [gpu(24)])
    ledger.given_up("a")
    assert left(ledger, 24) == 14
    ledger.given_up("b")
    assert left(ledger, 24) == 24


def test_one_that_leaves_while_another_loads() -> None:
    ledger = Ledger()
    ledger.promise("b", {0: 10}, [gpu(12)])
    ledger.came_back({0: 12})
    assert left(ledger, 24) == 14


def test_never_more_than_is_free() -> None:
    ledger = Ledger()
    ledger.promise("a", {0: 4}, [gpu(24)])
    assert left(ledger, 6) == 6, "another program has taken the rest"
    assert left(ledger, 24, index=1) == 24
