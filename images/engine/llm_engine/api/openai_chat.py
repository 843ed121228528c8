"""POST /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.api import likelihoods
from llm_engine.api import openai_messages as wire
from llm_engine.api.endpoint import SSE, Call, Reply, Stream, json_reply, sse
from llm_engine.api.errors import bad_request
from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.ollama_types import KeepAlive
from llm_engine.api.openai_types import ChatCompletionRequest, CompletionRequest, UsageOut
from llm_engine.api.ranges import check_openai
from llm_engine.api.text import collect, debug_render, open_turn
from llm_engine.api.turn import Answer, Begun, CallMade, Delta, End, Turn, total_usage
from llm_engine.chat.documents import Document
from llm_engine.runner.messages import TokenLogprob, Usage

FINGERPRINT = "fp_ollama"
MAX_CHOICES = 128


async def chat_completions(call: Call) -> Reply | Stream:
    request = await call.json(ChatCompletionRequest)
    turn = await call.work(to_turn, request)
    if request.debug_render_only:
        return json_reply(await debug_render(call, turn))
    head = Head(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), request.model)
    if request.stream:
        options = request.stream_options
        return Stream(_chunks(call, turn, head, bool(options and options.include_usage)), SSE)
    answers = await collect(call, turn)
    return await likelihoods.whole(answers.values(), lambda: _completion(head, answers))


@dataclass(frozen=True)
class Head:
    """What every chunk of one answer repeats."""

    id: str
    created: int
    model: str

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            **more,
        }


def sampling_overrides(request: ChatCompletionRequest | CompletionRequest) -> dict[str, Any]:
    """OpenAI's own fields as options."""
    given: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "logit_bias": request.logit_bias,
        "stop": wire.stop(request.stop) or None,
    }
    check_openai(given)
    return {name: value for name, value in given.items() if value is not None}


def keep_alive(value: Any) -> float | None:
    try:
        return None if value is None else KeepAlive.from_json(value).seconds
    except GoDecodeError as error:
        raise bad_request(str(error), param="keep_alive") from None


def documents(given: list[Any]) -> list[Document]:
    """Texts, or objects as Hugging Face's templates know them (`title`, `text`)."""
    if not all(isinstance(item, (str, dict)) for item in given):
        raise bad_request("documents must be texts or objects", param="documents")
    return [{"text": item} if isinstance(item, str) else item for item in given]


def choices_wanted(n: int | None) -> int:
    if n is None:
        return 1
    if not 1 <= n <= MAX_CHOICES:
        raise bad_request(f"n must be between 1 and {MAX_CHOICES}, not {n}", param="n")
    return n


def to_turn(request: ChatCompletionRequest) -> Turn:
    if not request.model:
        raise bad_request("model is required", param="model")
    overrides = sampling_overrides(request)
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if limit is not None:
        overrides["num_predict"] = limit
    tools = wire.tools(request.tools)
    reasoning = request.reasoning.get("effort") if isinstance(request.reasoning, dict) else None
    top = request.top_logprobs
    if top is not None and not 0 <= top <= 20:
        raise bad_request("top_logprobs must be between 0 and 20", param="top_logprobs")
    return Turn(
        model=request.model,
        messages=wire.messages(request.messages),
        tools=tools,
        documents=documents(request.documents),
        tool_choice=wire.tool_choice(request.tool_choice, tools),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        think=wire.effort(reasoning if reasoning is not None else request.reasoning_effort),
        relax_thinking=True,
        format=wire.response_format(request.response_format),
        options=request.options or {},
        overrides=overrides,
        fallbacks={"temperature": 1.0, "top_p": 1.0},
        keep_alive=keep_alive(request.keep_alive),
        n=choices_wanted(request.n),
        logprobs=(top or 0) if request.logprobs else None,
    )


def finish_reason(end: End) -> str:
    return "tool_calls" if end.called and end.reason == "stop" else end.reason


def usage_out(usage: Usage, thinking_tokens: int = 0) -> UsageOut:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": thinking_tokens},
    }


def _call_out(call: CallMade, arguments: str) -> dict[str, Any]:
    return {
        "id": call.id,
        "index": call.index,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def logprobs_out(items: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {"content": likelihoods.each(items, _logprob_out)}


def _logprob_out(item: TokenLogprob) -> dict[str, Any]:
    top = [_candidate(text, value) for _, text, value in item.top]
    return {**_candidate(item.text, item.logprob), "top_logprobs": top}


def _candidate(text: bytes, value: float) -> dict[str, Any]:
    return {"token": text.decode("utf-8", "replace"), "logprob": value, "bytes": list(text)}


def _completion(head: Head, answers: Mapping[int, Answer]) -> dict[str, Any]:
    ends = [answer.end for answer in answers.values() if answer.end]
    choices = []
    for index, answer in sorted(answers.items()):
        assert answer.end is not None
        message: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if answer.thinking:
            message["reasoning"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [_call_out(item, item.arguments_text) for item in answer.calls]
        choice: dict[str, Any] = {
            "index": index,
            "message": message,
            "finish_reason": finish_reason(answer.end),
        }
        if answer.logprobs:
            choice["logprobs"] = logprobs_out(answer.logprobs)
        choices.append(choice)
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
        "usage": usage_out(total_usage(ends), sum(end.thinking_tokens for end in ends)),
    }


async def _chunks(call: Call, turn: Turn, head: Head, include_usage: bool) -> AsyncGenerator[bytes, None]:
    ends: list[End] = []
    opened: set[int] = set()
    async with open_turn(call, turn) as pieces:
        async for piece in pieces:
            if isinstance(piece, Begun):
                continue
            if piece.index not in opened:
                opened.add(piece.index)
                yield sse(head.chunk([_choice(piece.index, {"role": "assistant", "content": ""})]))
            if isinstance(piece, End):
                ends.append(piece)
                yield sse(head.chunk([_choice(piece.index, {}, finish_reason(piece))]))
                continue
            for choice in _deltas(piece):
                yield sse(head.chunk([choice]))
    if include_usage:
        usage = usage_out(total_usage(ends), sum(end.thinking_tokens for end in ends))
        yield sse(head.chunk([], usage=usage))
    yield b"data: [DONE]\n\n"


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _deltas(piece: Delta) -> list[dict[str, Any]]:
    """Thinking and content never share a chunk; log-probabilities go with the first one."""
    deltas: list[dict[str, Any]] = []
    if piece.thinking:
        deltas.append({"content": "", "reasoning": piece.thinking})
    if piece.content:
        deltas.append({"content": piece.content})
    if piece.calls:
        calls = [_call_out(item, item.arguments_text) for item in piece.calls]
        deltas.append({"content": "", "tool_calls": calls})
    if not deltas and piece.logprobs:
        deltas.append({"content": ""})
    choices = [_choice(piece.index, delta) for delta in deltas]
    if choices and piece.logprobs:
        choices[0]["logprobs"] = logprobs_out(piece.logprobs)
    return choices
