"""The one path from a request for text to the model and back, shared by every API.

    async with open_turn(call, turn) as pieces:   # checks, loads, builds the prompt, starts
        async for piece in pieces: ...            # Begun, then Delta and End of each choice

Guarantees: whatever is wrong with the request is raised before `Begun`, which comes when the runner has taken
it; leaving early cancels the
generation within one turn of the batch loop; after the last `End` the model is released.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from llm_engine.api.account import Account
from llm_engine.api.after_thinking import ThinkFirst
from llm_engine.api.endpoint import Call
from llm_engine.api.errors import ApiError
from llm_engine.api.failures import runner_error
from llm_engine.api.forcing import Forced, grammar_for
from llm_engine.api.lookup import files_of, find_model, options_for
from llm_engine.api.prepare import Prepared, check_capabilities, prepare
from llm_engine.api.reading import Reader
from llm_engine.api.turn import Answer, Begun, Delta, End, Piece, Turn
from llm_engine.runner.messages import (
    Accepted,
    Done,
    Event,
    Failed,
    GenerateRequest,
    PromptRead,
    Queued,
    Started,
    TokenLogprob,
    Tokens,
)
from llm_engine.scheduler import Lease
from llm_engine.scheduler.process import RunnerError

UNLIMITED_FACTOR = 10
"""An answer without a limit ends after this many contexts: a model that never stops must not run for ever."""


@contextlib.asynccontextmanager
async def open_turn(call: Call, turn: Turn) -> AsyncIterator[AsyncGenerator[Piece, None]]:
    model = await find_model(call, turn.model)
    await asyncio.to_thread(check_capabilities, call, model, turn)
    options = options_for(model, turn.options, overrides=turn.overrides, fallbacks=turn.fallbacks)
    async with call.engine.use(call, files_of(model), options.runner, turn.keep_alive) as lease:
        prepared = await prepare(call, model, turn, lease, keep=options.num_keep)
        forced = await _forced(turn, options.grammar, prepared)
        limit = _limit(options.num_predict, turn, lease)
        request = GenerateRequest(
            prompt=prepared.prompt,
            sampling=options.sampling,
            # Zero tokens still means reading the prompt: it is counted, and it warms the cache.
            max_tokens=limit or 1,
            stop=(*options.stop, *prepared.stops),
            n=turn.n,
            grammar=forced.grammar,
            logprobs=turn.logprobs,
            prompt_logprobs=turn.logprobs if turn.prompt_logprobs else None,
            shift=turn.shift,
            keep=options.num_keep,
            add_special=prepared.add_special,
            special=prepared.special,
            echo_tokens=turn.want_context,
            deadline=_left(call, options.deadline),
            cache=options.cache_prompt,
        )
        run = _Run(call, turn, lease, prepared, forced, silent=limit == 0)
        pieces = run.pieces(request)
        try:
            yield pieces
        finally:
            await pieces.aclose()


async def _forced(turn: Turn, grammar: str | None, prepared: Prepared) -> Forced:
    """In a thread where there is a schema: a large one takes a while to become a grammar."""
    if turn.format is None and not turn.tools:
        return grammar_for(turn, grammar, prepared)
    return await asyncio.to_thread(grammar_for, turn, grammar, prepared)


def _left(call: Call, deadline: float | None) -> float | None:
    """The seconds that are left of those since the request came."""
    return None if deadline is None else max(0.0, deadline - (time.monotonic() - call.started))


def _limit(num_predict: int | None, turn: Turn, lease: Lease) -> int:
    if num_predict is not None and num_predict >= 0:
        return num_predict
    return UNLIMITED_FACTOR * lease.runner.info.n_ctx


async def check_turn(call: Call, turn: Turn) -> None:
    """What can be known to be wrong with a turn before anything is generated."""
    model = await find_model(call, turn.model)
    await asyncio.to_thread(check_capabilities, call, model, turn)
    options = options_for(model, turn.options, overrides=turn.overrides, fallbacks=turn.fallbacks)
    async with call.engine.use(call, files_of(model), options.runner, turn.keep_alive) as lease:
        await prepare(call, model, turn, lease)


@dataclass
class _Run:
    """One generation: the runner's events in, pieces out, numbers noted on the way."""

    call: Call
    turn: Turn
    lease: Lease
    prepared: Prepared
    forced: Forced
    silent: bool
    echoed: bool = False

    async def pieces(self, request: GenerateRequest) -> AsyncGenerator[Piece, None]:
        readers = [Reader(self.forced, self.turn) for _ in range(self.turn.n)]
        begun = Begun(self.prepared.tokens, self.prepared.truncated, self.lease.load_seconds)
        told = False
        left = self.turn.n
        account = Account(self.call, self.prepared.name, silent=self.silent)
        async with contextlib.aclosing(self._events(request)) as events:
            with contextlib.closing(account):
                async for event in events:
                    if isinstance(event, Failed):
                        raise await self._failure(event)
                    if not told:
                        told = True
                        yield begun
                    account.note(event)
                    if isinstance(event, PromptRead):
                        yield Delta(0, echo=self._echo(event))
                    if isinstance(event, Accepted | Queued | Started | PromptRead):
                        continue
                    reader = readers[event.index]
                    if isinstance(event, Tokens):
                        if not self.silent and (delta := await reader.feed(event)):
                            yield replace(delta, index=event.index)
                        continue
                    left -= 1
                    if left == 0:
                        self.lease.answered = True
                        account.close()
                    for piece in await self._finish(reader, event):
                        yield piece

    def _events(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        runner, marks = self.lease.runner, self.prepared.marks
        grammar = request.grammar
        if grammar is not None and not grammar.lazy and marks is not None and request.n == 1:
            return ThinkFirst(runner, request, marks, self.prepared.parser).events()
        return cast(AsyncGenerator[Event, None], runner.generate(request))

    def _echo(self, event: PromptRead) -> Sequence[TokenLogprob]:
        """Without the token that stands before every text, unless the client wrote it itself."""
        begun, self.echoed = self.echoed, True
        plain, items = self.turn.plain, event.logprobs
        added = not begun and plain is not None and plain.tokens is None
        return items[1:] if added and items and items[0].id == self.lease.runner.info.bos else items

    async def _failure(self, event: Failed) -> ApiError:
        if event.kind == "crashed" and self.call.engine.draining:
            return ApiError(503, "the server is shutting down", code="shutting_down")
        return await self.call.engine.failure(event.kind, event.text, self.lease.runner)

    def _client_stops(self) -> Sequence[str]:
        """The texts at which the client ends an answer; at those of the model's own a call may end."""
        given = self.turn.options.get("stop") or ()
        return (*self.turn.stops, *([given] if isinstance(given, str) else given))

    async def _finish(self, reader: Reader, done: Done) -> list[Piece]:
        usage = replace(done.usage, completion_tokens=0) if self.silent else done.usage
        pieces: list[Piece] = []
        cut = self.silent or done.reason in ("length", "deadline")
        stopped = done.stop_string in self._client_stops()
        if not self.silent and (delta := await reader.finish(cut=cut or stopped)):
            pieces.append(replace(delta, index=done.index))
        pieces.append(
            End(
                index=done.index,
                reason="length" if cut else "stop",
                # The model's own end marks are no news to a client; the texts it named itself are.
                stop_string=done.stop_string if done.stop_string in self.turn.stops else None,
                called=reader.called > 0,
                usage=usage,
                thinking_tokens=reader.thinking_tokens,
                context=(*self.prepared.token_ids, *reader.ids) if self.turn.want_context else (),
            )
        )
        return pieces


async def collect(call: Call, turn: Turn) -> dict[int, Answer]:
    """All choices, whole."""
    answers = {index: Answer() for index in range(turn.n)}
    async with open_turn(call, turn) as pieces:
        async for piece in pieces:
            if isinstance(piece, (Delta, End)):
                answers[piece.index].add(piece)
    return answers


async def load_only(call: Call, turn: Turn) -> None:
    """Loads the model, as a request without a prompt does."""
    model = await find_model(call, turn.model)
    await asyncio.to_thread(check_capabilities, call, model, turn)
    options = options_for(model, turn.options, overrides=turn.overrides)
    async with call.engine.use(call, files_of(model), options.runner, turn.keep_alive, load_only=True):
        pass


async def unload(call: Call, name: str) -> None:
    model = await find_model(call, name)
    await call.engine.scheduler.unload(files_of(model))


async def debug_render(call: Call, turn: Turn) -> dict[str, Any]:
    """The prompt as the model would get it; nothing is generated."""
    model = await find_model(call, turn.model)
    await asyncio.to_thread(check_capabilities, call, model, turn)
    options = options_for(model, turn.options, overrides=turn.overrides)
    async with call.engine.use(
        call, files_of(model), options.runner, turn.keep_alive, slotless=True
    ) as lease:
        prepared = await prepare(call, model, turn, lease)
    document: dict[str, Any] = {"rendered_template": prepared.text}
    if prepared.images:
        document["image_count"] = prepared.images
    return document


async def count_prompt(call: Call, turn: Turn) -> int:
    """How many tokens the prompt of this conversation has, by the model's own tokenizer; nothing is cut."""
    model = await find_model(call, turn.model)
    await asyncio.to_thread(check_capabilities, call, model, turn)
    whole = replace(turn, truncate=False, count_prompt=True)
    wanted = options_for(model).runner
    async with call.engine.use(call, files_of(model), wanted, turn.keep_alive, slotless=True) as lease:
        prepared = await prepare(call, model, whole, lease, check=False)
    assert prepared.tokens is not None
    return prepared.tokens


async def render_tokens(call: Call, name: str, tokens: Sequence[int]) -> str:
    model = await find_model(call, name)
    async with call.engine.use(
        call, files_of(model), options_for(model).runner, None, slotless=True
    ) as lease:
        try:
            return await lease.runner.detokenize(list(tokens))
        except RunnerError as error:
            raise runner_error(error.kind, error.text) from None
