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
from llm_engine.models.errors import InvalidName
from llm_engine.models.names import Name
from llm_engine.scheduler.errors import Unloaded
from llm_engine.scheduler.process import RunnerProcess

log = logging.getLogger("llm_engine.preload")
# Between two attempts to bring a pinned model back; a runner that lived for the longest time starts anew.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


async def preload(engine: Engine) -> None:
    """One after the other; ends when nothing is pinned, else watches over what is."""
    settings = engine.settings
    holding = []
    for name in settings.pin:
        with contextlib.suppress(InvalidName):
            engine.scheduler.keep(Name.parse(name).short)  # whoever loads it first
    for name in dict.fromkeys((*settings.pin, *settings.preload)):
        keeper = Keeper(engine, name, pinned=name in settings.pin)
        with contextlib.suppress(Unloaded):
            await keeper.load()
        if keeper.pinned and keeper.possible:
            holding.append(keeper.hold())
    await asyncio.gather(*holding)


class Keeper:
    """Loads one model, and keeps it loaded if it is pinned."""

    def __init__(self, engine: Engine, name: str, *, pinned: bool) -> None:
        self._engine = engine
        self._name = name
        self.pinned = pinned
        self.possible = True
        """Whether there can be a model of this name."""
        self._runner: RunnerProcess | None = None
        self._said = ""

    async def load(self) -> None:
        """Or say why not, once for each reason; Unloaded where it is not to be."""
        engine = self._engine
        try:
            model = await engine.models.get(self._name)
            files, options = files_of(model), options_for(model).runner
            keep_alive = FOREVER if self.pinned else None
            use = engine.scheduler.use(files, options, keep_alive, "preload", load_only=True)
            async with use as lease:
                self._runner, self._said = lease.runner, ""
        except Unloaded:
            raise
        except Exception as error:  # noqa: BLE001 - a missing model must not keep the server from serving
            self._runner, self.possible = None, not isinstance(error, InvalidName)
            if str(error) != self._said:
                self._said = str(error)
                log.error("preload failed", extra={"data": {"model": self._name, "reason": self._said}})

    async def hold(self) -> None:
        """Bring it back whenever it dies, or cannot be loaded yet. An order to unload it is obeyed; once it
        is used again it is held again."""
        delay = FIRST_DELAY
        while True:
            since = time.monotonic()
            if self._runner is not None:
                ended = await asyncio.shield(self._runner.exited)
                if time.monotonic() - since > LONGEST_DELAY:
                    delay = FIRST_DELAY
                if ended.expected and await self._loaded_by_another():
                    continue
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
            try:
                await self.load()
            except Unloaded:
                await self._loaded_by_another()

    async def _loaded_by_another(self) -> bool:
        """Waits until a request has loaded it; False where it was loaded anew and that failed."""
        name, last = Name.parse(self._name).short, self._runner
        found = self._engine.scheduler.named(name)
        reloading = found is not None and found.pinned
        while True:
            if found is None and reloading:
                return False
            if found is not None and found.process is not None and found.process is not last:
                self._runner = found.process
                return True
            await asyncio.sleep(FIRST_DELAY)
            found = self._engine.scheduler.named(name)
