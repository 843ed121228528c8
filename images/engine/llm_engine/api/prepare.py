"""From a turn to a prompt that is ready to run and fits the context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llm_engine.api.after_thinking import Marks, marks_for
from llm_engine.api.chatmodels import chat_model
from llm_engine.api.cutting import cut
from llm_engine.api.endpoint import Call
from llm_engine.api.errors import ApiError, bad_request
from llm_engine.api.failures import TOO_LONG, runner_error
from llm_engine.api.lookup import embeds_only
from llm_engine.api.turn import Plain, Turn
from llm_engine.chat import parsing, prompt, truncation
from llm_engine.chat.messages import Message, Tool
from llm_engine.chat.model import ChatModel
from llm_engine.chat.parsing.events import StreamParser
from llm_engine.chat.prompt import BuiltPrompt
from llm_engine.models.model import Model
from llm_engine.runner.messages import Media
from llm_engine.scheduler import Lease
from llm_engine.scheduler.process import RunnerError
from llm_engine.templates.errors import TemplateError

IMAGE_TOKENS = 768
"""What a picture is taken to cost before it is encoded."""
TRUNCATED = "X-Context-Truncated"
KEEP = 4
"""Tokens that stay at the front of a prompt that is cut, unless `num_keep` says how many; the
beginning-of-text token comes on top."""

Pieces = str | Sequence[int] | Sequence[str | Media]


@dataclass(frozen=True)
class Prepared:
    name: str
    text: str
    """The prompt as a person may see it."""
    prompt: Pieces
    parser: Callable[[], StreamParser]
    add_special: bool = True
    special: bool = False
    stops: tuple[str, ...] = ()
    images: int = 0
    tokens: int | None = None
    token_ids: Sequence[int] = ()
    truncated: bool = False
    built: BuiltPrompt | None = None
    marks: Marks | None = None
    """Where the model's thinking ends, if its answer may begin with some."""


def check_capabilities(call: Call, model: Model, turn: Turn) -> None:
    """What this model cannot do is refused before it is loaded."""
    chat = chat_model(call, model)
    if embeds_only(model):
        verb = "chat" if turn.plain is None else "generate"
        raise bad_request(f'"{turn.model}" does not support {verb}')
    problems = []
    if turn.tools and turn.tool_choice.mode != "none" and not chat_supports_tools(chat):
        problems.append(f"{model.name.full} does not support tools")
    fills = turn.plain is not None and turn.plain.suffix and not turn.plain.raw
    if fills and not (turn.plain and turn.plain.template) and not chat.go_traits.suffix:
        problems.append(f"{model.name.full} does not support insert")
    if turn.think and not turn.relax_thinking and not parsing.can_think(chat):
        problems.append(f'"{turn.model}" does not support thinking')
    if problems:
        raise bad_request("\n".join(problems))


def chat_supports_tools(chat: ChatModel) -> bool:
    return chat.supports_tools or parsing.family_of(chat).name not in ("generic", "plain")


async def prepare(
    call: Call, model: Model, turn: Turn, lease: Lease, *, check: bool = True, keep: int = KEEP
) -> Prepared:
    chat = chat_model(call, model, lease.runner.info)
    builder = _Builder(chat, model, turn, lease, keep)
    try:
        prepared = await builder.build(check=check)
    except TemplateError as error:
        raise ApiError(400, str(error), code="template_error") from None
    except RunnerError as error:
        raise runner_error(error.kind, error.text) from None
    if prepared.truncated:
        call.reply_headers[TRUNCATED] = "true"
    return prepared


class _Builder:
    """Builds the prompt, and shortens the conversation until it fits."""

    def __init__(self, chat: ChatModel, model: Model, turn: Turn, lease: Lease, keep: int) -> None:
        self.keep = keep
        self.chat = chat
        self.model = model
        self.turn = turn
        self.runner = lease.runner
        self.n_ctx = min(lease.spec.num_ctx, lease.runner.info.n_ctx)
        self.tools: Sequence[Tool] = () if turn.tool_choice.mode == "none" else turn.tools
        can_think = parsing.can_think(chat)
        self.think = turn.think if can_think or not turn.relax_thinking else None
        if turn.think is None and can_think:
            self.think = True

    async def build(self, *, check: bool) -> Prepared:
        plain = self.turn.plain
        if plain is not None and plain.tokens is not None:
            built = prompt.raw(self.chat, "")
            self._check_tokens(plain.tokens)
            return await self._fit(self._prepared(built, tuple(plain.tokens)), check)
        if plain is not None:
            built = await asyncio.to_thread(self._plain, plain)
            ids = [*plain.context, *await self._ids(built)] if plain.context else None
            return await self._fit(self._prepared(built, ids), check)
        messages = self._conversation()
        built = await self._chat(messages)
        prepared = self._prepared(built)
        if not check or not self.turn.truncate:
            return await self._fit(prepared, check)
        if not await self._fits(prepared) and len(messages) > 1:
            shorter = await truncation.shorten(messages, self._messages_fit, whole_turns=self.chat.uses_jinja)
            if len(shorter) < len(messages):
                prepared = replace(self._prepared(await self._chat(shorter)), truncated=True)
        return await self._fit(prepared, check)

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        size = self.runner.info.n_vocab
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise bad_request(f"token {wrong} is not in the vocabulary of {size}", param="prompt")

    async def _messages_fit(self, messages: Sequence[Message]) -> bool:
        return await self._fits(self._prepared(await self._chat(messages)))

    def _conversation(self) -> list[Message]:
        """The model's own messages first, and its system text unless the client brings one."""
        messages = [*self.chat.messages, *self.turn.messages]
        if self.chat.system and not (self.turn.messages and self.turn.messages[0].role == "system"):
            messages.insert(0, Message("system", self.chat.system))
        return messages

    async def _chat(self, messages: Sequence[Message]) -> BuiltPrompt:
        # A template from a stranger may take its whole budget: other requests must not wait for it.
        return await asyncio.to_thread(
            prompt.build,
            self.chat,
            messages,
            tools=self.tools,
            documents=self.turn.documents,
            think=self.think,
        )

    def _plain(self, plain: Plain) -> BuiltPrompt:
        if plain.raw:
            return prompt.raw(self.chat, plain.text, plain.images)
        template = plain.template or None
        if plain.suffix:
            return prompt.complete(
                self.chat, plain.text, plain.suffix, images=plain.images, template=template, think=self.think
            )
        messages = [] if plain.context else list(self.chat.messages)
        if system := plain.system or self.chat.system:
            messages.insert(0, Message("system", system))
        messages.append(Message("user", plain.text, images=plain.images))
        return prompt.build(self.chat, messages, think=self.think, template=template)

    def _prepared(self, built: BuiltPrompt, ids: Sequence[int] | None = None) -> Prepared:
        pieces: Pieces = built.text
        if built.images:
            pieces = [Media(piece) if isinstance(piece, bytes) else piece for piece in built.pieces]
        return Prepared(
            name=self.model.short_name,
            text=built.text,
            prompt=pieces if ids is None else ids,
            parser=built.parser,
            add_special=built.add_special and ids is None,
            special=built.special,
            stops=built.stops,
            images=built.images,
            tokens=None if ids is None else len(ids),
            token_ids=ids or (),
            built=built,
            marks=self._marks(built),
        )

    def _marks(self, built: BuiltPrompt) -> Marks | None:
        if not self.think or not built.thinks:
            return None
        return marks_for(built.family.name, built.family.thinking[1])

    async def _ids(self, built: BuiltPrompt) -> list[int]:
        """The ids of a text that stands after others."""
        return await self.runner.tokenize(built.text, add_special=False)

    async def _measured(self, prepared: Prepared) -> Prepared:
        """With its token count. Text is tokenised once; the runner then gets the ids."""
        if prepared.tokens is not None:
            return prepared
        ids = await self.runner.tokenize(prepared.text, add_special=prepared.add_special)
        if prepared.images:
            return replace(prepared, tokens=len(ids) + prepared.images * IMAGE_TOKENS)
        return replace(prepared, tokens=len(ids), token_ids=ids, prompt=ids, add_special=False)

    def _surely_fits(self, prepared: Prepared) -> bool:
        """A token is at least one byte of text, so a short text needs no counting."""
        if prepared.tokens is not None:
            return prepared.tokens < self.n_ctx
        room = self.n_ctx - 2 - prepared.images * IMAGE_TOKENS
        return len(prepared.text) < room and len(prepared.text.encode()) < room

    async def _fits(self, prepared: Prepared) -> bool:
        if self._surely_fits(prepared):
            return True
        measured = await self._measured(prepared)
        assert measured.tokens is not None
        return measured.tokens < self.n_ctx  # else there is no room for an answer

    async def _fit(self, prepared: Prepared, check: bool) -> Prepared:
        """Cut to the context, or refuse, as the turn says."""
        if self.turn.count_prompt or self.turn.want_context or not self._surely_fits(prepared):
            prepared = await self._measured(prepared)
        if not check or prepared.tokens is None or prepared.tokens < self.n_ctx:
            return prepared
        if not self.turn.truncate:
            raise ApiError(
                400,
                f"request ({prepared.tokens} tokens) exceeds the available context size "
                f"({self.n_ctx} tokens), try increasing it",
                code="context_length_exceeded",
            )
        if not self.turn.shift or prepared.images:
            raise ApiError(400, TOO_LONG, code="context_length_exceeded")
        added = int(self.runner.info.add_bos)
        keep = len(prepared.token_ids) if self.keep < 0 else self.keep + added
        ids = cut(prepared.token_ids, self.n_ctx, keep)
        return replace(
            prepared, prompt=ids, token_ids=ids, tokens=len(ids), add_special=False, truncated=True
        )
