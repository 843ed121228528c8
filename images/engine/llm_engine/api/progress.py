"""Statuses as an answer: a stream of lines, or the last of them as one object."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator

from llm_engine.api.endpoint import PLAIN_JSON, Reply, Stream, ndjson
from llm_engine.api.errors import ApiError
from llm_engine.api.goencode import dumps
from llm_engine.models.errors import ModelsError
from llm_engine.models.status import Status


async def reply(statuses: AsyncGenerator[Status, None], stream: bool | None) -> Reply | Stream:
    if stream is None or stream:
        return Stream(_lines(statuses))
    last = Status("")
    async for line in _checked(statuses):
        last = line
    return Reply(dumps(last.to_json()), media_type=PLAIN_JSON)


async def _lines(statuses: AsyncGenerator[Status, None]) -> AsyncGenerator[bytes, None]:
    async for status in _checked(statuses):
        yield ndjson(status.to_json())


async def _checked(statuses: AsyncGenerator[Status, None]) -> AsyncGenerator[Status, None]:
    try:
        async for status in statuses:
            yield status
    except ModelsError as error:
        raise ApiError(error.status, str(error)) from None
    finally:
        await statuses.aclose()


async def from_thread(make: Callable[[], Generator[Status, None, None]]) -> AsyncGenerator[Status, None]:
    """Runs a blocking generator in a thread of its own; closing this one closes that one before its next
    step."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Status | BaseException | None] = asyncio.Queue()
    stop = threading.Event()

    def work() -> None:
        end: BaseException | None = None
        generator = make()
        try:
            for status in generator:
                loop.call_soon_threadsafe(queue.put_nowait, status)
                if stop.is_set():
                    break
        except Exception as error:  # noqa: BLE001 - carried over to the caller, who judges it
            end = error
        finally:
            generator.close()
            loop.call_soon_threadsafe(queue.put_nowait, end)

    # Of its own: making a model takes minutes, and requests need the threads that all share.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="progress", daemon=True)
    thread.start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(thread.join)))
