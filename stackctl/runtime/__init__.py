"""The only rooms that start, stop and look at services: one interface, Docker and local processes behind
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackctl.config import StackConfig
    from stackctl.runtime.base import Runtime


def select(config: StackConfig) -> Runtime:
    """The runtime of this stack. Nothing is started or asked for yet."""
    from stackctl.runtime import selection

    return selection.runtime_of(config, selection.choose(config).name)
