"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from llm_engine.api.anthropic_messages import to_turn
from llm_engine.api.anthropic_types import CountTokensRequest, MessagesRequest, UsageOut
from llm_engine.api.endpoint import SSE, Call, Reply, Stream, json_reply, sse
from llm_engine.api.text import collect, count_prompt, open_turn
from llm_engine.api.turn import Answer, Begun, CallMade, Delta, End, Piece, Turn
from llm_engine.runner.messages import Usage

PING_SECONDS = 10.0
SIGNATURE = ""
"""Thinking is plain text here and needs no proof of where it came from; clients only send it back."""


async def messages(call: Call) -> Reply | Stream:
    request = await call.json(MessagesRequest)
    turn = await call.work(to_turn, request)
    message_id = f"msg_{secrets.token_hex(12)}"
    if request.stream:
        return Stream(_Events(request.model, message_id).run(call, turn), SSE)
    answer = (await collect(call, turn))[0]
    return json_reply(_reply(request.model, message_id, answer))


async def count_tokens(call: Call) -> Reply:
    request = await call.json(CountTokensRequest)
    return json_reply({"input_tokens": await count_prompt(call, await call.work(to_turn, request))})


def stop_reason(end: End) -> str:
    if end.stop_string is not None:
        return "stop_sequence"
    if end.reason == "length":
        return "max_tokens"
    return "tool_use" if end.called else "end_turn"


def usage_out(usage: Usage) -> UsageOut:
    """Anthropic counts what the cache held apart from the other input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
    }


def _reply(model: str, message_id: str, answer: Answer) -> dict[str, Any]:
    assert answer.end is not None
    content: list[dict[str, Any]] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE})
    if answer.content:
        content.append({"type": "text", "text": answer.content})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments_json}
        for call in answer.calls
    ]
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason(answer.end),
        "stop_sequence": answer.end.stop_string,
        "usage": usage_out(answer.end.usage),
    }


class _Events:
    """Writes the event sequence; at most one block is open, and each has its own index."""

    def __init__(self, model: str, message_id: str) -> None:
        self.model = model
        self.message_id = message_id
        self.index = -1
        self.open: str | None = None

    async def run(self, call: Call, turn: Turn) -> AsyncGenerator[bytes, None]:
        async with open_turn(call, turn) as pieces, contextlib.aclosing(_with_pings(pieces)) as stream:
            async for piece in stream:
                if piece is None:
                    yield sse({"type": "ping"}, "ping")
                elif isinstance(piece, Begun):
                    yield self._start(piece)
                    yield sse({"type": "ping"}, "ping")
                elif isinstance(piece, Delta):
                    for chunk in self._delta(piece):
                        yield chunk
                else:
                    for chunk in self._end(piece):
                        yield chunk

    def _start(self, begun: Begun) -> bytes:
        message: dict[str, Any] = {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage_out(Usage()), "input_tokens": begun.prompt_tokens or 0, "output_tokens": 0},
        }
        return sse({"type": "message_start", "message": message}, "message_start")

    def _delta(self, piece: Delta) -> list[bytes]:
        chunks: list[bytes] = []
        if piece.thinking:
            chunks += self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            chunks.append(self._block_delta({"type": "thinking_delta", "thinking": piece.thinking}))
        if piece.content:
            chunks += self._switch("text", {"type": "text", "text": ""})
            chunks.append(self._block_delta({"type": "text_delta", "text": piece.content}))
        for made in piece.calls:
            chunks += self._call(made)
        return chunks

    def _call(self, made: CallMade) -> list[bytes]:
        chunks = self._close()
        chunks += self._switch(
            "tool_use", {"type": "tool_use", "id": made.id, "name": made.name, "input": {}}
        )
        chunks.append(self._block_delta({"type": "input_json_delta", "partial_json": made.arguments_text}))
        return chunks + self._close()

    def _switch(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        if self.open == kind:
            return []
        chunks = self._close()
        self.index += 1
        self.open = kind
        event = {"type": "content_block_start", "index": self.index, "content_block": block}
        return [*chunks, sse(event, "content_block_start")]

    def _close(self) -> list[bytes]:
        if self.open is None:
            return []
        chunks = []
        if self.open == "thinking":
            chunks.append(self._block_delta({"type": "signature_delta", "signature": SIGNATURE}))
        self.open = None
        chunks.append(sse({"type": "content_block_stop", "index": self.index}, "content_block_stop"))
        return chunks

    def _block_delta(self, delta: dict[str, Any]) -> bytes:
        event = {"type": "content_block_delta", "index": self.index, "delta": delta}
        return sse(event, "content_block_delta")

    def _end(self, end: End) -> list[bytes]:
        delta = {"stop_reason": stop_reason(end), "stop_sequence": end.stop_string}
        return [
            *self._close(),
            sse({"type": "message_delta", "delta": delta, "usage": usage_out(end.usage)}, "message_delta"),
            sse({"type": "message_stop"}, "message_stop"),
        ]


async def _with_pings(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece | None, None]:
    """The pieces, and None whenever nothing came for a while: a proxy must not think the connection dead."""
    begun = False
    task: asyncio.Task[Piece] | None = None
    try:
        while True:
            task = task or asyncio.ensure_future(anext(pieces))
            # Nothing may be written before the message has started: until then an error can still be a
            # status.
            done, _ = await asyncio.wait({task}, timeout=PING_SECONDS if begun else None)
            if not done:
                yield None
                continue
            try:
                piece = task.result()
            except StopAsyncIteration:
                return
            finally:
                task = None
            begun = True
            yield piece
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
