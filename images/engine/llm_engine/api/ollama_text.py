"""POST /api/generate and /api/chat."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.api import goencode, likelihoods
from llm_engine.api.endpoint import NDJSON, Call, Reply, Stream, json_reply, ndjson
from llm_engine.api.errors import ApiError, bad_request
from llm_engine.api.ollama_messages import chat_message
from llm_engine.api.ollama_types import ChatRequest, GenerateRequest, KeepAlive, Message, Think, Tool
from llm_engine.api.openai_messages import tool_choice
from llm_engine.api.text import debug_render, load_only, open_turn, unload
from llm_engine.api.turn import Answer, Begun, CallMade, Delta, End, JsonFormat, Plain, Turn
from llm_engine.chat import messages as chat
from llm_engine.durations import nanoseconds
from llm_engine.runner.messages import TokenLogprob


async def generate(call: Call) -> Reply | Stream:
    request = await call.json(GenerateRequest)
    _check_top_logprobs(request.top_logprobs)
    shape = _Generate(request.model)
    empty = not request.prompt and not request.suffix and not request.images
    if empty and _zero(request.keep_alive):
        await unload(call, request.model)
        return json_reply(shape.final("unload"))
    if request.raw and (request.template or request.system or request.context):
        raise bad_request("raw mode does not support template, system, or context")
    turn = Turn(
        model=request.model,
        plain=Plain(
            text=request.prompt,
            raw=request.raw,
            system=request.system,
            template=request.template,
            suffix=request.suffix,
            context=request.context,
            images=[image.data for image in request.images],
        ),
        think=_think(request.think),
        format=json_format(request.format),
        options=request.options or {},
        keep_alive=_seconds(request.keep_alive),
        logprobs=request.top_logprobs if request.logprobs else None,
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        want_context=not request.raw,
    )
    return await _answer(call, turn, shape, request.stream, request.debug_render_only, load=empty)


async def chat_route(call: Call) -> Reply | Stream:
    request = await call.json(ChatRequest)
    _check_top_logprobs(request.top_logprobs)
    if not request.model:
        raise bad_request("model is required")
    shape = _Chat(request.model)
    if not request.messages and _zero(request.keep_alive):
        await unload(call, request.model)
        return json_reply(shape.final("unload"))
    tools = [_tool(item) for item in request.tools]
    turn = Turn(
        model=request.model,
        messages=await call.work(_messages, request.messages),
        tools=tools,
        tool_choice=tool_choice(request.tool_choice, tools),
        think=_think(request.think),
        format=json_format(request.format),
        options=request.options or {},
        keep_alive=_seconds(request.keep_alive),
        logprobs=request.top_logprobs if request.logprobs else None,
        truncate=request.truncate is not False,
        shift=request.shift is not False,
    )
    return await _answer(
        call, turn, shape, request.stream, request.debug_render_only, load=not request.messages
    )


async def _answer(
    call: Call, turn: Turn, shape: _Shape, stream: bool | None, debug: bool, *, load: bool
) -> Reply | Stream:
    if debug:
        rendered = await debug_render(call, turn)
        return json_reply({**shape.debug(), "done": False, "_debug_info": rendered})
    if load:
        await load_only(call, turn)
        return json_reply(shape.final("load"))
    if stream is not False:
        return Stream(_lines(call, turn, shape), NDJSON)
    answer = Answer()
    load_seconds = 0.0
    async with open_turn(call, turn) as pieces:
        async for piece in pieces:
            if isinstance(piece, Begun):
                load_seconds = piece.load_seconds
            else:
                answer.add(piece)
    assert answer.end is not None
    whole = Delta(0, answer.content, answer.thinking, answer.calls, answer.logprobs)
    metrics = _metrics(call, answer.end, load_seconds)
    end = answer.end
    return await likelihoods.whole([answer], lambda: shape.last(whole, end, metrics))


async def _lines(call: Call, turn: Turn, shape: _Shape) -> AsyncGenerator[bytes, None]:
    load_seconds = 0.0
    async with open_turn(call, turn) as pieces:
        async for piece in pieces:
            if isinstance(piece, Begun):
                load_seconds = piece.load_seconds
            elif isinstance(piece, Delta):
                yield ndjson(shape.piece(piece))
            else:
                yield ndjson(shape.last(Delta(0), piece, _metrics(call, piece, load_seconds)))


@dataclass(frozen=True)
class _Shape(ABC):
    """How one of the two routes writes its objects."""

    model: str

    def head(self) -> dict[str, Any]:
        return {"model": self.model, "created_at": goencode.now()}

    @abstractmethod
    def body(self, piece: Delta) -> dict[str, Any]:
        """The fields that hold what the model wrote."""

    def debug(self) -> dict[str, Any]:
        return {**self.head(), **self.body(Delta(0))}

    def piece(self, piece: Delta) -> dict[str, Any]:
        document = {**self.head(), **self.body(piece), "done": False}
        return {**document, **_logprobs(piece.logprobs)}

    def final(self, reason: str) -> dict[str, Any]:
        return {**self.head(), **self.body(Delta(0)), "done": True, "done_reason": reason}

    def last(self, piece: Delta, end: End, metrics: Mapping[str, Any]) -> dict[str, Any]:
        document = {**self.head(), **self.body(piece), "done": True, "done_reason": end.reason}
        if end.context:
            document["context"] = list(end.context)
        return {**document, **metrics, **_logprobs(piece.logprobs)}


class _Generate(_Shape):
    def body(self, piece: Delta) -> dict[str, Any]:
        document: dict[str, Any] = {"response": piece.content}
        if piece.thinking:
            document["thinking"] = piece.thinking
        if piece.calls:
            document["tool_calls"] = [_call(item) for item in piece.calls]
        return document


class _Chat(_Shape):
    def body(self, piece: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.content}
        if piece.thinking:
            message["thinking"] = piece.thinking
        if piece.calls:
            message["tool_calls"] = [_call(item) for item in piece.calls]
        return {"message": message}

    def debug(self) -> dict[str, Any]:
        return {**self.head(), "message": {"role": "", "content": ""}}


def _call(item: CallMade) -> dict[str, Any]:
    function = {"index": item.index, "name": item.name, "arguments": item.arguments_json}
    return {"id": item.id, "function": function}


def _metrics(call: Call, end: End, load_seconds: float) -> dict[str, int]:
    usage = end.usage
    values = {
        "total_duration": nanoseconds(time.monotonic() - call.started),
        "load_duration": nanoseconds(load_seconds),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(usage.prompt_seconds),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(usage.generate_seconds),
    }
    return {name: value for name, value in values.items() if value}


def _logprobs(items: Sequence[TokenLogprob]) -> dict[str, Any]:
    if not items:
        return {}
    return {"logprobs": likelihoods.each(items, _entry)}


def _entry(item: TokenLogprob) -> dict[str, Any]:
    entry = _logprob(item.text, item.logprob)
    if item.top:
        entry["top_logprobs"] = [_logprob(text, value) for _, text, value in item.top]
    return entry


def _logprob(text: bytes, value: float) -> dict[str, Any]:
    return {"token": text.decode("utf-8", "replace"), "logprob": value, "bytes": list(text)}


# -- reading ----------------------------------------------------------------------------------------------


def _check_top_logprobs(value: int) -> None:
    if not 0 <= value <= 20:
        raise bad_request("top_logprobs must be between 0 and 20")


def _zero(keep_alive: KeepAlive | None) -> bool:
    return keep_alive is not None and keep_alive.seconds == 0


def _seconds(keep_alive: KeepAlive | None) -> float | None:
    return None if keep_alive is None else keep_alive.seconds


def _think(think: Think | None) -> bool | str | None:
    return None if think is None else think.value


def json_format(value: Any) -> JsonFormat | None:
    """`"json"`, a schema, or nothing. Ollama answers 500 to anything else; the mistake is the client's."""
    if value in (None, ""):
        return None
    if value == "json":
        return "json"
    if isinstance(value, dict):
        return value
    shown = goencode.dumps(value).decode()
    raise ApiError(400, f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def _messages(items: Sequence[Message]) -> list[chat.Message]:
    return [chat_message(item) for item in items]


def _tool(item: Tool) -> chat.Tool:
    function = item.function
    return chat.Tool(function.name, function.description, function.parameters, item.type or "function")
