"""Comments into the pauses of an event stream.

A model that writes a long call of a tool says nothing until the call is whole, and proxies end what looks
dead. A comment is no event: clients drop it. Anthropic's API has a ping of its own instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import Send

QUIET_SECONDS = 10.0
COMMENT = b": still writing\n\n"


class Pauses:
    """Told of each chunk that is written, it writes a comment after a pause."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.written = 0

    @contextlib.asynccontextmanager
    async def filled(self) -> AsyncIterator[None]:
        """While this is open; the answer must have begun."""
        task = asyncio.create_task(self._watch(), name="pauses")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            before = self.written
            await asyncio.sleep(QUIET_SECONDS)
            if self.written == before:
                await self.send({"type": "http.response.body", "body": COMMENT, "more_body": True})
