"""A model that thinks, and whose answer must have a form: it thinks freely, then the grammar begins.

Two generations: the first runs until the thinking ends, the second goes on from there under the grammar. The
prefix cache makes the second one nearly free. A model that does not think after all starts anew under the
grammar, before anything was sent. (A grammar that allows thinking would do with one generation, and several
choices at once use it; but a token that ends the thinking and goes on with other text is then refused, and a
model whose vocabulary has no token for the tag may think for ever.)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from llm_engine.api.cutting import cut
from llm_engine.chat.parsing.events import StreamParser, Thinking
from llm_engine.runner.messages import (
    Accepted,
    Done,
    Event,
    Failed,
    GenerateRequest,
    Grammar,
    Media,
    Queued,
    Started,
    Tokens,
    Usage,
)
from llm_engine.scheduler.process import RunnerProcess

Prompt = str | Sequence[int] | Sequence[str | Media]


@dataclass(frozen=True)
class Marks:
    """The texts around a family's thinking."""

    end: str
    """Where thinking ends."""
    bridge: str
    """What stands between the thinking and the answer, `end` included."""


NEVER = "(?!)"
"""A regular expression that nothing matches."""
# The form itself names the channel that follows.
HARMONY = Marks("<|end|>", "<|end|><|start|>assistant")


def marks_for(family: str, end: str) -> Marks:
    return HARMONY if family == "harmony" else Marks(end, f"{end}\n\n")


class ThinkFirst:
    """The events of both generations as those of one."""

    def __init__(
        self,
        runner: RunnerProcess,
        request: GenerateRequest,
        marks: Marks,
        parser: Callable[[], StreamParser],
    ) -> None:
        self.runner = runner
        self.request = request
        self.marks = marks
        self.probe = parser()
        self.text = ""
        self.usage = Usage()
        self.began = time.monotonic()

    async def events(self) -> AsyncGenerator[Event, None]:
        free = replace(self.request, grammar=self._asleep(), stop=(self.marks.end,))
        held: list[Event] = []
        thinking = False
        async with contextlib.aclosing(self._generate(free)) as events:
            async for event in events:
                if isinstance(event, Failed):
                    yield event
                    return
                if isinstance(event, Accepted | Queued | Started):
                    yield event
                    continue
                if isinstance(event, Done):
                    self.usage = event.usage
                    if event.reason not in ("stop", "stop_string"):
                        for earlier in (*held, event):
                            yield earlier
                        return
                    break
                held.append(event)
                if isinstance(event, Tokens) and not thinking:
                    kinds = {type(found) for found in self.probe.feed(event.text)}
                    if kinds - {Thinking}:
                        break
                    thinking = Thinking in kinds
                if thinking:
                    for earlier in held:
                        yield earlier
                        self.text += earlier.text if isinstance(earlier, Tokens) else ""
                    held = []
        bridge = self.marks.bridge if thinking else ""
        if bridge:
            yield Tokens(0, bridge)
        async with contextlib.aclosing(self._generate(await self._second(bridge))) as events:
            async for event in events:
                if isinstance(event, Started):
                    continue  # the prompt is counted once
                yield replace(event, usage=self._both(event.usage)) if isinstance(event, Done) else event

    def _asleep(self) -> Grammar | None:
        """The grammar, which nothing wakes: one that does not parse is refused before anything is said."""
        grammar = self.request.grammar
        return None if grammar is None else replace(grammar, trigger_patterns=(NEVER,))

    def _generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        return cast(AsyncGenerator[Event, None], self.runner.generate(request))

    async def _second(self, bridge: str) -> GenerateRequest:
        said = self.text + bridge
        prompt = self.request.prompt
        request = self.request
        if not isinstance(prompt, str) and not all(isinstance(piece, int) for piece in prompt):
            longer: Prompt = [*cast(Sequence[str | Media], prompt), said]
        elif isinstance(prompt, str) and len((prompt + said).encode()) < self.runner.info.n_ctx - 2:
            longer = prompt + said
        else:
            ids = await self._ids(prompt)
            ids += await self.runner.tokenize(said, add_special=False) if said else []
            longer = self._fitting(ids)
            request = replace(request, add_special=False)
        left = max(self.request.max_tokens - self.usage.completion_tokens, 1)
        deadline = self.request.deadline
        if deadline is not None:
            deadline = max(0.0, deadline - (time.monotonic() - self.began))
        return replace(request, prompt=longer, max_tokens=left, deadline=deadline)

    async def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return await self.runner.tokenize(prompt, add_special=self.request.add_special)
        return list(cast(Sequence[int], prompt))

    def _fitting(self, ids: list[int]) -> list[int]:
        """What the context has shifted away while the model thought cannot come back."""
        n_ctx, keep = self.runner.info.n_ctx, self.request.keep
        if len(ids) < n_ctx or not self.request.shift:
            return ids
        return cut(ids, n_ctx, n_ctx // 2 if keep < 0 else keep)

    def _both(self, second: Usage) -> Usage:
        """The prompt is counted once; what was generated and how long it took is added up."""
        first = self.usage
        if first.prompt_tokens == 0:
            return second
        return replace(
            first,
            completion_tokens=first.completion_tokens + second.completion_tokens,
            prompt_seconds=first.prompt_seconds + second.prompt_seconds,
            generate_seconds=first.generate_seconds + second.generate_seconds,
        )
