"""A text that is longer than the context: its beginning and its end, with room to go on."""

from __future__ import annotations

from collections.abc import Sequence


def cut(ids: Sequence[int], n_ctx: int, keep: int) -> list[int]:
    """The first tokens and the last ones, so that half of the context behind the first stays free."""
    keep = min(keep, n_ctx - 1)
    tail = n_ctx - keep - max((n_ctx - keep) // 2, 1)
    return [*ids[:keep], *ids[len(ids) - tail :]]
