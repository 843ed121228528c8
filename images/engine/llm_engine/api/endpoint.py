"""One HTTP exchange, from the body to the last byte, and the only place that watches the client's connection.

A handler is `async def handler(call: Call) -> Reply`. It may raise ApiError at any time and knows nothing of
sockets. Guarantees: an error before the first byte becomes a proper status; one after it becomes the
dialect's error event; when the client hangs up, the handler is cancelled at once, wherever it waits; no
task outlives the exchange.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import zstandard
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from llm_engine.api import goencode, gojson, goparse, longtexts
from llm_engine.api.errors import ApiError, Dialect, body
from llm_engine.api.pauses import Pauses

if TYPE_CHECKING:
    from llm_engine.api.state import Engine

log = logging.getLogger("llm_engine.api")
T = TypeVar("T")
P = ParamSpec("P")

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
LOGGED = frozenset(
    {
        *("/api/generate", "/api/chat", "/api/embed", "/api/embeddings"),
        *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses"),
        *("/v1/messages", "/v1/messages/count_tokens"),
    }
)
"""The routes whose bodies hold what people ask models."""
SMALL = 64 << 10
"""Bodies up to here are read on the event loop itself: a millisecond at most."""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    content: bytes = b""
    status: int = 200
    media_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer written as it is made; the status is sent with the first chunk, not before."""

    chunks: AsyncGenerator[bytes, None]
    media_type: str = NDJSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(goencode.dumps(value), status, JSON, headers or {})


def text_reply(text: str, status: int = 200, *, media_type: str = "text/plain; charset=utf-8") -> Reply:
    return Reply(text.encode(), status, media_type)


def ndjson(value: Any) -> bytes:
    return goencode.dumps(value) + b"\n"


def sse(value: Any, event: str | None = None) -> bytes:
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + goencode.dumps(value) + b"\n\n"


@dataclass
class Call:
    """What a handler may know of the request."""

    engine: Engine
    dialect: Dialect
    scope: Scope
    headers: Headers
    path_params: Mapping[str, str]
    request_id: str
    client: str
    receive: Receive
    limit: int
    started: float = field(default_factory=time.monotonic)
    size: int = 0
    """Bytes of the body, once it was read."""
    reply_headers: dict[str, str] = field(default_factory=dict)
    """Headers a handler adds to its answer, until the first byte is out."""

    @property
    def key(self) -> str:
        """The name of the API key that was shown, `-` without one."""
        return str(self.scope["key_name"])

    async def body(self) -> bytes:
        """The whole body, decompressed; 413 when it is larger than the server allows."""
        chunks = [chunk async for chunk in self.body_stream()]
        self.size = sum(map(len, chunks))
        raw = await self.work(b"".join, chunks)
        if self.headers.get("content-encoding", "").lower() == "zstd":
            raw = await asyncio.to_thread(self._unzstd, raw)
        self.size = len(raw)
        return raw

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a request's size makes slow is done in a thread, so that no other request feels it; for a
        small one that would cost more than it saves."""
        if self.size <= SMALL:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)

    async def body_stream(self, limit: int | None = None) -> AsyncIterator[bytes]:
        limit = self.limit if limit is None else limit
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            size += len(chunk)
            if limit and size > limit:
                raise ApiError(413, f"request body is larger than {limit} bytes")
            if chunk:
                yield chunk
            if not message.get("more_body", False):
                return

    def _unzstd(self, raw: bytes) -> bytes:
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(raw)
            data = reader.read(self.limit + 1 if self.limit else -1)
        except zstandard.ZstdError:
            raise ApiError(400, "failed to decompress zstd body") from None
        if self.limit and len(data) > self.limit:
            raise ApiError(413, f"request body is larger than {self.limit} bytes")
        return data

    async def _log(self, raw: bytes) -> None:
        """Where it was asked for: what people need to see when a client's request is not what they think."""
        requests = self.engine.requests
        if requests is not None and self.scope["route_path"] in LOGGED:
            host, port = self.scope.get("server") or ("127.0.0.1", None)
            address = f"{self.scope.get('scheme', 'http')}://{f'[{host}]' if ':' in host else host}:{port}"
            await asyncio.to_thread(requests.write, self.scope["route_path"], self.request_id, raw, address)

    async def json(self, cls: type[T]) -> T:
        """The body as the request dataclass `cls`, with Go's errors."""
        raw = await self.body()
        await self._log(raw)
        if not raw.strip():
            raise ApiError(400, "missing request body" if self.dialect is Dialect.OLLAMA else "EOF")
        try:
            return await self.work(gojson.decode, raw, cls)
        except longtexts.TooMuch as error:
            raise ApiError(413, str(error)) from None
        except goparse.GoDecodeError as error:
            raise ApiError(400, str(error)) from None


Handler = Callable[[Call], Awaitable[Reply | Stream]]


@dataclass(frozen=True)
class Endpoint:
    """A route: what it answers to, who handles it, and what its description says."""

    methods: tuple[str, ...]
    path: str
    handler: Handler
    dialect: Dialect = Dialect.OLLAMA
    request: Any = None
    reply: Any = None
    stream: str | None = None
    summary: str = ""
    body: Mapping[str, Any] | None = None
    """What its description says of a body that is not JSON: media types with their schemas."""
    replies: tuple[int, ...] = (200,)
    """The statuses of answers that are no errors."""
    errors: tuple[int, ...] = ()
    """Statuses of errors that other routes like it do not have."""
    limit: int | None = None
    """None: the server's body limit; 0: none, for uploads that go to disk as they come."""


class Exchange:
    """Runs one handler against one connection."""

    def __init__(self, endpoint: Endpoint, call: Call, send: Send) -> None:
        self.endpoint = endpoint
        self.call = call
        self.send = send
        self.receive = call.receive
        self.body_done = asyncio.Event()
        self.disconnected = False
        self.status = 0

    async def run(self) -> None:
        self.call.receive = self._receive
        work = asyncio.create_task(self._work(), name=f"work {self.call.request_id}")
        watch = asyncio.create_task(self._watch(), name=f"watch {self.call.request_id}")
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.disconnected = True
                work.cancel()
        finally:
            # Also when the server itself cancels the exchange: nothing may stay behind.
            for task in (watch, work):
                task.cancel() if task is watch or not work.done() else None
            results = await asyncio.gather(work, watch, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _receive(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.body_done.set()
        return message

    async def _watch(self) -> None:
        await self.body_done.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _work(self) -> None:
        try:
            reply = await self.endpoint.handler(self.call)
            if isinstance(reply, Stream):
                await self._stream(reply)
            else:
                await self._whole(reply)
        except ApiError as error:
            await self._error(error)
        except ClientDisconnect:
            self.disconnected = True
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("handler failed", extra={"data": {"path": self.endpoint.path}})
            await self._error(ApiError(500, "internal error; the server's log has the details"))

    def _headers(self, own: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        both = {**self.call.reply_headers, **own}
        return [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in both.items()]

    async def _whole(self, reply: Reply) -> None:
        self.body_done.set()
        head = self.call.scope["method"] == "HEAD"
        headers = self._headers(reply.headers)
        headers.append((b"content-length", str(len(reply.content)).encode()))
        if reply.media_type:
            headers.append((b"content-type", reply.media_type.encode()))
        self.status = reply.status
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"" if head else reply.content})

    async def _stream(self, reply: Stream) -> None:
        self.body_done.set()
        pauses = Pauses(self.send)
        quiet = reply.media_type == SSE and self.call.dialect is not Dialect.ANTHROPIC
        async with contextlib.aclosing(reply.chunks) as chunks, contextlib.AsyncExitStack() as stack:
            try:
                async for chunk in chunks:
                    if not self.status:
                        await self._start(reply)
                        if quiet:
                            await stack.enter_async_context(pauses.filled())
                    pauses.written += 1
                    await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
            except ApiError as error:
                if not self.status:
                    raise
                await self._late_error(error, reply.media_type)
            except Exception as error:
                if not self.status:
                    raise
                log.exception("stream failed", extra={"data": {"path": self.endpoint.path}})
                del error
                await self._late_error(
                    ApiError(500, "internal error; the server's log has the details"), reply.media_type
                )
        if not self.status:
            await self._start(reply)
        await self.send({"type": "http.response.body", "body": b""})

    async def _start(self, reply: Stream) -> None:
        self.status = 200
        headers = self._headers(reply.headers)
        headers.append((b"content-type", reply.media_type.encode()))
        if reply.media_type == SSE:
            headers.append((b"cache-control", b"no-cache"))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _late_error(self, error: ApiError, media_type: str) -> None:
        document = body(error, self.call.dialect, self.call.request_id)
        if media_type == SSE:
            event = "error" if self.call.dialect is Dialect.ANTHROPIC else None
            chunk = sse(document, event)
            if self.call.dialect is Dialect.OPENAI:
                chunk += b"data: [DONE]\n\n"
        else:
            chunk = ndjson(document)
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _error(self, error: ApiError) -> None:
        if self.status:
            return
        content = goencode.dumps(body(error, self.call.dialect, self.call.request_id))
        await self._whole(Reply(content, error.status, JSON, error.headers))
