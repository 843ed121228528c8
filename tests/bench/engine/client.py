"""A small HTTP client for both servers: one connection per request, streaming, with the time of every piece.

It shares the two cores with the server under test, so it does as little as it can: no HTTP library, JSON only
where a number is read.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """One streamed answer."""

    text: str = ""
    started: float = 0.0
    times: list[float] = field(default_factory=list)
    """When each piece of text came."""
    ended: float = 0.0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def first(self) -> float:
        return self.times[0] - self.started if self.times else self.ended - self.started


class BadReply(Exception):
    """The server did not answer as it should."""


async def request(
    port: int, method: str, path: str, body: Any = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    raw = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    await writer.drain()
    return reader, writer


async def fetch(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and body of a plain request."""
    reader, writer = await request(port, method, path, body)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        rest = await reader.read()
    finally:
        writer.close()
    if b"chunked" in head.lower():
        rest = _unchunk(rest)
    return int(head.split(b" ", 2)[1]), rest


def _unchunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return out
        out, data = out + data[:length], data[length + 2 :]
    raise BadReply("the body broke off")


async def chat(port: int, messages: list[dict[str, str]], max_tokens: int, **options: Any) -> Reply:
    """Stream one chat completion. Sampling is seeded and warm: greedy nonsense would run in circles."""
    body = {
        "model": "bench",
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1.0,
        "seed": 1,
        **options,
    }
    reply = Reply(started=time.perf_counter())
    reader, writer = await request(port, "POST", "/v1/chat/completions", body)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise BadReply((head + await reader.read()).decode("utf-8", "replace"))
        async for line in reader:
            if line.startswith(b"data: {"):
                _take(reply, line)
            elif line.startswith(b"data: [DONE]"):
                reply.ended = time.perf_counter()
                return reply
    finally:
        writer.close()
    raise BadReply(f"the stream broke off after {len(reply.times)} pieces")


def _take(reply: Reply, line: bytes) -> None:
    event = json.loads(line[6:])
    if "error" in event:
        raise BadReply(str(event["error"]))
    for choice in event.get("choices", ()):
        text = choice.get("delta", {}).get("content")
        if text:
            reply.times.append(time.perf_counter())
            reply.text += text
    usage = event.get("usage")
    if usage:
        reply.completion_tokens = usage["completion_tokens"]
        reply.prompt_tokens = usage["prompt_tokens"]
        reply.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
