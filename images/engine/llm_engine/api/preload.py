"""The models that are to be there from the start, and those of them that are to stay.

Each is loaded as its own parameters say, so that the first request finds it as it wants it. A pinned one
whose runner dies is loaded again without anybody asking; a model that cannot be loaded keeps nothing else
from being served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from llm_engine.api.lookup import files_of, options_for
from llm_engine.api.state import Engine
from llm_engine.durations import FOREVER
from llm_engine.scheduler.errors import Unloaded
from llm_engine.scheduler.process import RunnerProcess

log = logging.getLogger("llm_engine.preload")
# Between two attempts to bring a pinned model back; a runner that lived for the longest time starts anew.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


async def preload(engine: Engine) -> None:
    """One after the other; ends when nothing is pinned, else watches over what is."""
    settings = engine.settings
    holding = []
    for name in dict.fromkeys((*settings.pin, *settings.preload)):
        pinned = name in settings.pin
        with contextlib.suppress(Unloaded):
            runner = await _load(engine, name, pinned=pinned)
            if pinned and runner is not None:
                holding.append(_hold(engine, name, runner))
    await asyncio.gather(*holding)


async def _load(engine: Engine, name: str, *, pinned: bool) -> RunnerProcess | None:
    """None where it cannot be loaded; Unloaded where it is not to be."""
    try:
        model = await engine.models.get(name)
        files, options = files_of(model), options_for(model).runner
        keep_alive = FOREVER if pinned else None
        async with engine.scheduler.use(files, options, keep_alive, "preload", load_only=True) as lease:
            if pinned:
                engine.scheduler.keep(files)
            return lease.runner
    except Unloaded:
        raise
    except Exception as error:  # noqa: BLE001 - a missing model must not keep the server from serving
        log.error("preload failed", extra={"data": {"model": name, "reason": str(error)}})
        return None


async def _hold(engine: Engine, name: str, runner: RunnerProcess) -> None:
    """Until it is unloaded by order, loaded or not yet, or replaced by a load that somebody asked for."""
    delay = FIRST_DELAY
    while True:
        since = time.monotonic()
        ended = await asyncio.shield(runner.exited)
        if ended.expected:
            return
        if time.monotonic() - since > LONGEST_DELAY:
            delay = FIRST_DELAY
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
            try:
                again = await _load(engine, name, pinned=True)
            except Unloaded:
                return
            if again is not None:
                runner = again
                break
