"""From a conversation to the text that the model continues.

Two ways: the model's Go template, executed as Ollama does, or its Jinja template (see
`ChatModel.uses_jinja`). Everything the caller needs to run the prompt and to read the answer comes back in
one `BuiltPrompt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from llm_engine.chat import jinja_prompt, legacy, parsing
from llm_engine.chat.documents import Document, tell
from llm_engine.chat.govalues import go_message, go_tools
from llm_engine.chat.media import MediaMarkers
from llm_engine.chat.merging import merge, system_text
from llm_engine.chat.messages import Message, Tool
from llm_engine.chat.model import ChatModel, go_template
from llm_engine.chat.parsing.events import StreamParser
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.gotemplate.inspect import inspect

Think = bool | str | None


@dataclass(frozen=True)
class BuiltPrompt:
    """A prompt that is ready to run."""

    text: str
    """What a person may see: pictures are `[img-N]`."""
    pieces: tuple[str | bytes, ...]
    """What the runner gets: text, and the bytes of pictures between."""
    model: ChatModel
    tools: Sequence[Tool] = ()
    think: Think = None
    thinks: bool = False
    """Whether the answer may begin with thinking, wanted or not."""
    add_special: bool = True
    """False when the template has already written the model's begin-of-text token."""
    stops: tuple[str, ...] = ()
    images: int = 0
    family: parsing.Family = field(default=parsing.GENERIC)
    own_tags: frozenset[str] = frozenset()
    """The family's tags that the conversation itself speaks of."""

    @property
    def special(self) -> bool:
        """Whether the parser must see control tokens in the generated text."""
        return self.family.special and (bool(self.tools) or self.family.always)

    def parser(self) -> StreamParser:
        """A new parser for one answer to this prompt."""
        return self.parser_of(self.family)

    def parser_of(self, family: parsing.Family) -> StreamParser:
        keep = self.think is None or bool(self.think)
        return parsing.parser_for(
            family,
            self.tools,
            thinks=self.thinks,
            keep_thinking=keep,
            prompt_tail=self.text,
            own=self.own_tags,
        )


def build(
    model: ChatModel,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    documents: Sequence[Document] = (),
    think: Think = None,
    template: str | None = None,
    now: datetime | None = None,
) -> BuiltPrompt:
    """The prompt for a conversation; `template` is a Go template that replaces the model's own."""
    family = parsing.family_of(model)
    if think is None and parsing.can_think(model):
        think = True
    if documents and not (template is None and model.shows_documents):
        messages, documents = tell(messages, documents), ()
    markers = MediaMarkers()
    marked = markers.mark(messages)
    if template is None and model.uses_jinja:
        text = jinja_prompt.render(model, marked, tools, think, now, documents)
    else:
        chosen = model.go if template is None else go_template(template)
        text = _go(chosen, merge(marked), tools, think, now)
    thinks = parsing.can_think(model)
    own = () if tools else _tags_in(messages, family)
    return _built(model, text, markers, family, tools=tools, think=think, thinks=thinks, own=own)


def _tags_in(messages: Sequence[Message], family: parsing.Family) -> list[str]:
    """A client that teaches its own form of calls, or asks about one, gets the model's words as they are."""
    tags = (*family.opens, *family.stray_closes, *family.noise)
    return [tag for tag in tags if any(tag in message.content for message in messages)]


def complete(
    model: ChatModel,
    prompt: str,
    suffix: str,
    *,
    images: Sequence[bytes] = (),
    template: str | None = None,
    think: Think = None,
    now: datetime | None = None,
) -> BuiltPrompt:
    """Fill in the middle: what stands between `prompt` and `suffix`. Only Go templates can say this."""
    markers = MediaMarkers()
    (message,) = markers.mark([Message("user", prompt, images=images)])
    values = {"Prompt": message.content, "Suffix": suffix, "Response": "", **_thinking(think)}
    chosen = model.go if template is None else go_template(template)
    text = chosen.execute(values, today=_today(now))
    return _built(model, text, markers, parsing.PLAIN, think=think)


def raw(model: ChatModel, prompt: str, images: Sequence[bytes] = ()) -> BuiltPrompt:
    """The client's own text, untouched; its pictures stand in front of it."""
    markers = MediaMarkers()
    (message,) = markers.mark([Message("user", prompt, images=images)])
    return _built(model, message.content, markers, parsing.PLAIN)


def _built(
    model: ChatModel,
    text: str,
    markers: MediaMarkers,
    family: parsing.Family,
    *,
    tools: Sequence[Tool] = (),
    think: Think = None,
    thinks: bool = False,
    own: Sequence[str] = (),
) -> BuiltPrompt:
    shown, pieces = markers.cut(text)
    return BuiltPrompt(
        text=shown,
        pieces=pieces,
        model=model,
        tools=tuple(tools),
        think=think,
        thinks=thinks,
        add_special=not (model.bos and text.startswith(model.bos)),
        stops=family.stops,
        images=len(markers.media),
        family=family,
        own_tags=frozenset(own),
    )


def _thinking(think: Think) -> dict[str, Any]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _today(now: datetime | None) -> Any:
    return None if now is None else now.date()


def _go(
    template: Template, messages: Sequence[Message], tools: Sequence[Tool], think: Think, now: datetime | None
) -> str:
    names = inspect(template).names
    if "Messages" not in names and "Response" not in names:
        template = legacy.with_response(template)
    thinking = _thinking(think)

    def run(tree: Template, values: dict[str, Any]) -> str:
        return tree.execute({**values, **thinking}, today=_today(now))

    if "Messages" in names:
        values = {
            "System": system_text(messages),
            "Messages": [go_message(message) for message in messages],
            "Tools": go_tools(tools),
            "Response": "",
        }
        return run(template, values)
    return legacy.execute(template, messages, run)
