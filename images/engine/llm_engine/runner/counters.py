"""What a loop has done since its start, and what it holds now, as one message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_engine.runner.branch import Branch, State
from llm_engine.runner.cache import Cache
from llm_engine.runner.messages import Stats


@dataclass
class Counters:
    """Only ever rise; the loop adds to them as it goes."""

    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    cancelled: int = 0
    decode_failures: int = 0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0


def tell(counters: Counters, running: Iterable[Branch], cache: Cache, queued: int) -> Stats:
    """The counters beside what the cache holds and who is running."""
    states = [branch.state for branch in running]
    active = cache.active_cells
    parked_tokens, parked_bytes = cache.parked
    return Stats(
        running=states.count(State.WRITING),
        prefilling=states.count(State.READING),
        queued=queued,
        cells=cache.cells,
        cells_active=active,
        cells_cached=cache.used - active,
        sequences=cache.sequences,
        evictions=cache.evictions,
        parked_tokens=parked_tokens,
        parked_bytes=parked_bytes,
        restored_tokens=cache.restored,
        **vars(counters),
    )
