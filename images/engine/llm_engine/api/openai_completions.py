"""POST /v1/completions: text in, text on from there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llm_engine.api import likelihoods
from llm_engine.api.endpoint import SSE, Call, Reply, Stream, sse
from llm_engine.api.errors import bad_request
from llm_engine.api.openai_chat import FINGERPRINT, choices_wanted, keep_alive, sampling_overrides, usage_out
from llm_engine.api.openai_types import CompletionRequest
from llm_engine.api.text import check_turn, collect, open_turn, render_tokens
from llm_engine.api.together import together
from llm_engine.api.turn import Answer, Begun, Delta, End, Piece, Plain, Turn, added_usage, total_usage
from llm_engine.runner.messages import TokenLogprob, Usage

MAX_PROMPTS = 128
Prompt = str | Sequence[int]


async def completions(call: Call) -> Reply | Stream:
    request = await call.json(CompletionRequest)
    if not request.model:
        raise bad_request("model is required", param="model")
    prompts = await call.work(_prompts, request.prompt)
    n = choices_wanted(request.n)
    best_of = n if request.best_of is None else request.best_of
    if not n <= best_of <= 20 and best_of != n:
        raise bad_request(f"best_of must be between n ({n}) and 20, not {best_of}", param="best_of")
    if best_of > n and request.stream:
        raise bad_request("best_of cannot be streamed: the best is known at the end only", param="best_of")
    if request.logprobs is not None and not 0 <= request.logprobs <= 20:
        raise bad_request("logprobs must be between 0 and 20", param="logprobs")
    turns = [_turn(request, prompt, best_of) for prompt in prompts]
    writer = _Writer(request, n)
    if request.stream:
        return Stream(writer.chunks(call, turns, prompts), SSE)
    return await writer.whole(call, turns, prompts)


def _prompts(value: Any) -> list[Prompt]:
    """A text, several texts, a list of token ids, or several of those."""
    if value is None:
        return [""]
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            prompts: list[Prompt] = list(value)
        elif all(_is_token(item) for item in value):
            prompts = [value]
        elif all(isinstance(item, list) and item and all(map(_is_token, item)) for item in value):
            prompts = list(value)
        else:
            raise bad_request("prompt must be text, a list of texts, or lists of token ids", param="prompt")
        if len(prompts) > MAX_PROMPTS:
            raise bad_request(f"at most {MAX_PROMPTS} prompts, not {len(prompts)}", param="prompt")
        return prompts
    raise bad_request("prompt must be text, a list of texts, or lists of token ids", param="prompt")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _turn(request: CompletionRequest, prompt: Prompt, n: int) -> Turn:
    overrides = sampling_overrides(request)
    if request.max_tokens is not None:
        overrides["num_predict"] = request.max_tokens
    wants_logprobs = request.logprobs
    if n > 1 and wants_logprobs is None and (request.best_of or 0) > (request.n or 1):
        wants_logprobs = 0  # the best is the likeliest, so likelihoods are needed
    scored = request.echo and request.logprobs is not None
    plain = (
        # Who asks how likely a text is means that text, and no template around it.
        Plain(text=prompt, suffix=request.suffix, raw=scored and not request.suffix)
        if isinstance(prompt, str)
        else Plain(tokens=prompt, raw=True)
    )
    return Turn(
        model=request.model,
        plain=plain,
        think=False,
        relax_thinking=True,
        options=request.options or {},
        overrides=overrides,
        fallbacks={"temperature": 1.0, "top_p": 1.0},
        keep_alive=keep_alive(request.keep_alive),
        n=n,
        logprobs=wants_logprobs,
        prompt_logprobs=scored,
        truncate=not scored,  # each token of the prompt is asked about
    )


class _Writer:
    """Numbers the choices over all prompts and writes them down."""

    def __init__(self, request: CompletionRequest, n: int) -> None:
        self.request = request
        self.n = n
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def _document(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            **more,
        }

    async def whole(self, call: Call, turns: Sequence[Turn], prompts: Sequence[Prompt]) -> Reply:
        results = await together(collect(call, turn) for turn in turns)
        echoes = [await self._echo(call, prompt) for prompt in prompts]
        answers = [answer for result in results for answer in result.values()]
        return await likelihoods.whole(answers, lambda: self._whole(results, echoes))

    def _whole(self, results: Sequence[dict[int, Answer]], echoes: Sequence[str]) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        usages: list[Usage] = []
        for result, echo in zip(results, echoes, strict=True):
            answers = list(result.values())
            usages.append(total_usage([answer.end for answer in answers if answer.end]))
            best = (
                sorted(answers, key=_likelihood, reverse=True)[: self.n] if len(answers) > self.n else answers
            )
            echoed = result[0].echo
            for answer in best:
                choices.append(self._choice(answer, len(choices), echo, echoed))
        return self._document(choices, usage=usage_out(added_usage(usages)))

    async def _echo(self, call: Call, prompt: Prompt) -> str:
        if not self.request.echo:
            return ""
        return prompt if isinstance(prompt, str) else await render_tokens(call, self.request.model, prompt)

    def _choice(
        self, answer: Answer, index: int, echo: str, echoed: Sequence[TokenLogprob]
    ) -> dict[str, Any]:
        assert answer.end is not None
        logprobs = None
        if self.request.logprobs is not None:
            logprobs = _joined(_echoed(echoed, echo), _logprobs(answer.logprobs, len(echo)))
        return {
            "text": echo + answer.content,
            "index": index,
            "finish_reason": answer.end.reason,
            "logprobs": logprobs,
        }

    async def chunks(
        self, call: Call, turns: Sequence[Turn], prompts: Sequence[Prompt]
    ) -> AsyncGenerator[bytes, None]:
        options = self.request.stream_options
        include_usage = bool(options and options.include_usage)
        usages: list[Usage] = []
        written: dict[int, int] = {}
        for later in turns[1:]:  # the first is checked before it says anything
            await check_turn(call, later)
        echoes = [await self._echo(call, prompt) for prompt in prompts]
        for base, (turn, echo) in enumerate(zip(turns, echoes, strict=True)):
            async with open_turn(call, turn) as pieces:
                ends: list[End] = []
                prompt_read: list[TokenLogprob] = []
                told = not echo
                async for piece in pieces:
                    if isinstance(piece, Delta):
                        prompt_read.extend(piece.echo)
                    if not told and (not turn.prompt_logprobs or _says(piece)):
                        told = True
                        for chunk in await asyncio.to_thread(self._echoes, base, echo, prompt_read):
                            yield chunk
                    if isinstance(piece, Begun):
                        continue
                    index = base * self.n + piece.index
                    if isinstance(piece, End):
                        ends.append(piece)
                        yield sse(self._document([_chunk(index, "", finish=piece.reason)]))
                    elif piece.content or piece.logprobs:
                        at = written.get(index, len(echo))
                        yield sse(self._document([self._delta(piece, index, at)]))
                        written[index] = at + len(piece.content)
                usages.append(total_usage(ends))
        if include_usage:
            yield sse(self._document([], usage=usage_out(added_usage(usages))))
        yield b"data: [DONE]\n\n"

    def _echoes(self, base: int, echo: str, read: Sequence[TokenLogprob]) -> list[bytes]:
        """The prompt, as the first chunk of each choice."""
        logprobs = _echoed(read, echo) if read else None
        return [
            sse(self._document([{**_chunk(base * self.n + index, echo), "logprobs": logprobs}]))
            for index in range(self.n)
        ]

    def _delta(self, piece: Delta, index: int, offset: int) -> dict[str, Any]:
        chunk = _chunk(index, piece.content)
        if self.request.logprobs is not None and piece.logprobs:
            chunk["logprobs"] = _logprobs(piece.logprobs, offset)
        return chunk


def _chunk(index: int, text: str, *, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "finish_reason": finish, "logprobs": None}


def _likelihood(answer: Answer) -> float:
    """The mean log-probability per token: OpenAI's measure of the best."""
    values = [item.logprob for item in answer.logprobs]
    return sum(values) / len(values) if values else float("-inf")


def _says(piece: Piece) -> bool:
    """Whether the prompt has been read when this comes."""
    return isinstance(piece, End) or (isinstance(piece, Delta) and not piece.echo)


def _echoed(items: Sequence[TokenLogprob], prompt: str) -> dict[str, Any]:
    """The prompt's tokens; nothing is known of the first."""
    found = _logprobs(items, 0)
    if items and "".join(found["tokens"]) == f" {prompt}":  # some tokenizers put a blank before a text
        found["tokens"][0] = found["tokens"][0][1:]
        found["text_offset"] = [max(0, offset - 1) for offset in found["text_offset"]]
    if items:
        found["token_logprobs"][0] = found["top_logprobs"][0] = None
    return found


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {name: first[name] + second[name] for name in first}


def _text(token: bytes) -> str:
    """A token's text; one that is part of a character is told by its bytes, so that no two are alike."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _logprobs(items: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    offsets = []
    for item in items:
        offsets.append(offset)
        offset += len(item.text.decode("utf-8", "replace"))
    return {
        "tokens": [_text(item.text) for item in items],
        "token_logprobs": [item.logprob for item in items],
        "top_logprobs": [
            likelihoods.fragment({_text(text): value for _, text, value in item.top}) for item in items
        ],
        "text_offset": offsets,
    }
