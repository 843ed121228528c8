"""Fetching one blob: parts in parallel in the order of the file, the digest right behind, retries that keep
what is there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from llm_engine.models.blobs import BlobStore
from llm_engine.models.digests import Digest
from llm_engine.models.errors import RegistryError
from llm_engine.models.registry.client import Registry, raise_for, transient
from llm_engine.models.registry.partial import Busy, Partial
from llm_engine.models.registry.ratelimit import RateLimit
from llm_engine.models.registry.together import together

if TYPE_CHECKING:
    import aiohttp

PART = 32 * 1024 * 1024
FLUSH = 512 * 1024
FLUSH_SECONDS = 1.0
WHOLE_TRIES = 3  # so often in a row the whole blob in place of a part: the registry means it
EXPIRED = (301, 302, 303, 307, 308, 400, 401, 403, 404, 410)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long to wait for what."""

    stall: float = 30.0
    """No byte for so long: the connection is given up and the part asked for again."""
    slowest: float = 256.0
    """Bytes per second that a connection must bring over such a time, else it counts as stalled."""
    tries: int = 6
    """Failures in a row without a single byte between them."""
    pause: float = 1.0
    longest_pause: float = 30.0

    def after(self, failures: int) -> float:
        """Doubling, and never in step with other clients."""
        return min(self.pause * 2.0 ** (failures - 1), self.longest_pause) * random.uniform(0.75, 1.25)


@dataclass
class Traffic:
    """What all transfers of a server share."""

    parallel: int = 8
    rate: RateLimit = field(default_factory=RateLimit)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        self.connections = asyncio.Semaphore(self.parallel)


@dataclass
class _Span:
    """What one connection fetches: `at` moves towards `end` as bytes are written."""

    at: int
    end: int
    wholes: int = 0
    """How often in a row the whole blob came instead."""


class _NoRanges(Exception):
    """The registry sends the whole blob whatever part is asked for."""


class _TooSlow(RegistryError):
    """Bytes come, and so few that the transfer would never end."""


class Download:
    """`run` ends with the blob in the store, or raises. `report` is called with the bytes that are there."""

    def __init__(
        self,
        blobs: BlobStore,
        registry: Registry,
        digest: Digest,
        size: int,
        traffic: Traffic,
        report: Callable[[int], None],
    ) -> None:
        self.blobs = blobs
        self.registry = registry
        self.digest = digest
        self.size = size
        self.traffic = traffic
        self.report = report
        self.partial = Partial(blobs, digest, size)
        self.failures = 0
        self.url = ""
        self.advanced = asyncio.Event()
        self.in_parts = False
        """Whether the registry has given a part when one was asked for."""

    async def run(self) -> None:
        try:
            while not self.blobs.has(self.digest, self.size):
                try:
                    await asyncio.to_thread(self.partial.open)
                except Busy:
                    await asyncio.sleep(0.2)  # until the other process has it, or is gone
                    continue
                await self._fetch()
                break
            self.report(self.size)
        finally:
            await asyncio.shield(asyncio.to_thread(self.partial.close))

    async def _fetch(self) -> None:
        self.report(self.partial.ranges.total)
        hashing = asyncio.create_task(self._hash_behind())
        try:
            if self.partial.ranges.total < self.size:
                try:
                    await self._in_parts()
                except _NoRanges:
                    await self._as_a_whole()
            found = await self.partial.finish()
        finally:
            hashing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hashing
        if found != self.digest:
            raise RegistryError(
                f"digest mismatch, file must be downloaded again: want {self.digest}, got {found}"
            )

    async def _hash_behind(self) -> None:
        while True:
            self.advanced.clear()
            await self.partial.hash_on()
            await self.advanced.wait()

    async def _in_parts(self) -> None:
        spans = deque(
            _Span(at, min(at + PART, end))
            for start, end in self.partial.ranges.gaps(self.size)
            for at in range(start, end, PART)
        )
        # One connection finds out where the bytes are and whether parts are served; then the others follow.
        await self._part(spans.popleft())

        async def worker() -> None:
            while spans:
                async with self.traffic.connections:
                    if spans:
                        await self._part(spans.popleft())

        async with together() as group:
            for _ in range(min(len(spans), self.traffic.parallel)):
                group.create_task(worker())

    async def _part(self, span: _Span) -> None:
        while span.at < span.end:
            before = span.at
            try:
                await self._stream(span)
            except Exception as error:
                if not transient(error):
                    raise
                await self._pause(error, progress=span.at > before and not isinstance(error, _TooSlow))
            else:
                self.failures = 0

    async def _stream(self, span: _Span) -> None:
        """Asks for what is missing of a span and writes it; `span.at` has moved however it ends."""
        self.url = self.url or await self.registry.direct_url(str(self.digest), self.traffic.patience.stall)
        headers = {"Range": f"bytes={span.at}-{span.end - 1}"}
        async with self._get(headers) as response:
            if response.status == 200:
                # The whole blob from its start: no use unless that is what is missing.
                if response.content_length != span.end - span.at or span.at:
                    self._refuse_whole(span)
            else:
                await self._check(response, span)
                self.in_parts, span.wholes = True, 0
            await self._write_body(response, span)
        if span.at < span.end:
            raise RegistryError("the registry ended the connection early", retryable=True)

    def _refuse_whole(self, span: _Span) -> NoReturn:
        span.wholes += 1
        if not self.in_parts or span.wholes >= WHOLE_TRIES:
            raise _NoRanges
        # Other parts came: one machine of many behind the address, or a proxy that was restarted.
        self.url = ""
        raise RegistryError("the registry sent the whole blob in place of a part", retryable=True)

    async def _check(self, response: aiohttp.ClientResponse, span: _Span) -> None:
        if response.status != 206:
            if response.status in EXPIRED:
                # A signed address runs out; the registry will give another, or say no itself.
                known, self.url = self.url, ""
                if not known.startswith(self.registry.base):
                    raise RegistryError(f"{response.status}: {response.reason}", retryable=True)
            await raise_for(response)
            raise RegistryError(
                f"the registry answers {response.status} to a request for a part of {self.digest}"
            )
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != span.at or int(found[2]) > span.end - 1:
            raise RegistryError(f"the registry sent other bytes of {self.digest} than those asked for")
        if found[3] not in ("*", str(self.size)):
            raise RegistryError(
                f"the registry has {found[3]} bytes of {self.digest}, the manifest says {self.size}"
            )

    @contextlib.asynccontextmanager
    async def _get(self, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        stall = self.traffic.patience.stall
        async with self.registry.request("GET", self.url, headers=headers, stall=stall) as response:
            yield response

    async def _write_body(self, response: aiohttp.ClientResponse, span: _Span) -> None:
        buffer = bytearray()
        flushed = time.monotonic()
        try:
            async for chunk in self._chunks(response):
                buffer += chunk
                if len(buffer) >= FLUSH or time.monotonic() - flushed >= FLUSH_SECONDS:
                    data, buffer = buffer, bytearray()
                    await self._put(data, span)
                    flushed = time.monotonic()
        finally:
            # Also what came before the connection broke.
            if buffer:
                await self._put(buffer, span)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body; _TooSlow when it drips. Only waiting for the other side counts, not our own work."""
        patience = self.traffic.patience
        waited, received = 0.0, 0
        while True:
            asked = time.monotonic()
            chunk = await response.content.readany()
            if not chunk:
                return
            waited += time.monotonic() - asked
            received += len(chunk)
            yield chunk
            if waited >= patience.stall:
                if received < patience.slowest * waited:
                    raise _TooSlow(
                        f"the registry sent {received} bytes in {waited:.0f} seconds", retryable=True
                    )
                waited, received = 0.0, 0

    async def _put(self, data: bytearray, span: _Span) -> None:
        if span.at + len(data) > span.end:
            raise RegistryError(f"the registry sent more bytes of {self.digest} than there are")
        await self.traffic.rate.take(len(data))
        # Of a whole blob that is sent again, what is there already stays as it is.
        for start, end in self.partial.ranges.missing(span.at, span.at + len(data)):
            await self.partial.write(start, data[start - span.at : end - span.at])
        span.at += len(data)
        self.report(self.partial.ranges.total)
        self.advanced.set()

    async def _as_a_whole(self) -> None:
        """In one piece, for registries that know no ranges; each failure asks for it from its start."""
        while True:
            there = self.partial.ranges.total
            span = _Span(0, self.size)
            try:
                async with self._get({}) as response:
                    await raise_for(response)
                    await self._write_body(response, span)
                if span.at == self.size:
                    return
                raise RegistryError("the registry ended the connection early", retryable=True)
            except Exception as error:
                if not transient(error):
                    raise
                await self._pause(error, progress=self.partial.ranges.total > there)

    async def _pause(self, error: Exception, *, progress: bool) -> None:
        """Waits before the next try; gives up after so many failures without a byte between them."""
        self.failures = 1 if progress else self.failures + 1
        if self.failures >= self.traffic.patience.tries:
            raise RegistryError(
                f"giving up on {self.digest} after {self.failures} failures: {describe(error)}"
            ) from error
        wait = error.retry_after if isinstance(error, RegistryError) else 0.0
        await asyncio.sleep(max(wait, self.traffic.patience.after(self.failures)))


def describe(error: BaseException) -> str:
    """In words, also for errors without any."""
    import aiohttp

    if isinstance(error, (aiohttp.SocketTimeoutError, asyncio.TimeoutError)):
        return "no data for too long"
    return str(error) or type(error).__name__
