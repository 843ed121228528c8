"""How much of the waiting prompts to read in one turn, so that running streams keep their pace.

A turn's time is modelled as a base (the running streams' own tokens) plus a cost per prompt token, both
measured as turns go by. The budget is what fits into the allowed gap. Of what came cheaper than reckoned a
quarter of the difference is believed per turn, of what came dearer nearly all: pieces that are too small cost
a little time, pieces that are too large break the promise.
"""

from __future__ import annotations

_CHEAPER, _DEARER = 0.25, 0.8
# A processor's attention works in tiles of 64 tokens, spread over the threads in a way that fits pieces of
# this many; others break tiles, and each broken one costs as much as a whole one. Measured with 900 tokens
# read and others running: a piece of 99 took 6.1 ms a token, of 128 about 3.
PIECE = 128
# Fewer tokens than this at a time cost half as much again each.
LEAST = 64


class Pace:
    """`budget` before a turn, `wrote` and `read` after its decodes; those count as if all threads computed.

    What else is computed in the same turns has a pace of its own, `beside` the one of the streams: it knows
    from there how long their tokens take, and both keep to their `share` of the gap.
    """

    def __init__(self, gap_seconds: float, capacity: int, beside: Pace | None = None) -> None:
        self._gap = gap_seconds
        self._capacity = capacity
        self._beside = beside
        self.share = 1.0
        self._base = 0.0
        self._per_token = 0.0
        self._least = min(capacity, LEAST)

    def budget(self, running: int, spent: float = 0.0, speed: float = 1.0) -> int:
        """Prompt tokens for this turn, given how many streams run, how many seconds of it went to something
        else, and what part of the threads computes.
        """
        if running == 0:
            return self._capacity
        if self._per_token == 0.0:
            return self._least
        tokens = int((self._gap - self.base / speed - spent) * self.share * speed / self._per_token)
        whole = (tokens + PIECE // 2) // PIECE * PIECE
        return max(self._least, min(self._capacity, whole))

    def bears(self, speed: float) -> bool:
        """Whether the streams keep to the gap with this part of the threads."""
        return self.base <= self._gap * speed

    @property
    def base(self) -> float:
        """Seconds that the running streams' own tokens take."""
        return self._beside.base if self._beside is not None else self._base

    def wrote(self, seconds: float) -> None:
        """The running streams' own tokens took this long."""
        self._base = _blend(self._base, seconds)

    def read(self, seconds: float, tokens: int) -> None:
        """Reading so many prompt tokens took this long."""
        if tokens >= min(self._least, 16):
            self._per_token = _blend(self._per_token, seconds / tokens)


def _blend(old: float, new: float) -> float:
    return new if old == 0.0 else old + (_DEARER if new > old else _CHEAPER) * (new - old)
