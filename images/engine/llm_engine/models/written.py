"""A stored model as a Modelfile that makes it again.

The grammar cannot say everything that a model may hold: a tool's message, an option that nobody knows, a text
that closes both kinds of quotes. A model that holds such a thing is written as made from itself, by its name,
so that nothing is lost; a comment says what is taken over in this way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_engine.models import builtins
from llm_engine.models.canonical import go_float
from llm_engine.models.create import ORDER
from llm_engine.models.model import Model
from llm_engine.models.modelfile import Command, can_say, generated_heading, render
from llm_engine.models.parameters import DEPRECATED, InvalidParameter, check
from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.known import detect

FILES = (("model", "from"), ("adapter", "adapter"), ("draft", "draft"), ("projector", "from"))
KINDS = frozenset((*ORDER, "prompt"))


@dataclass(frozen=True)
class _Part:
    """Lines that belong together: all of them are written, or none because one cannot be."""

    commands: Sequence[Command]
    inherited: str = ""
    """What is left out instead, and why."""


def modelfile(
    model: Model, *, system: str = "", template: str = "", params: Mapping[str, Any] | None = None
) -> str:
    """The Modelfile of `model`, with other texts and parameters where they are given."""
    parts = [
        _text("template", template or model.template or "", model),
        _text("system", system or model.system),
        *(_text(name, getattr(model.config, name)) for name in ("renderer", "parser")),
        *(
            _parameter(model, name, value)
            for name, value in (model.params if params is None else params).items()
        ),
        _text("requires", model.config.requires),
        *(_text("license", text) for text in model.licenses),
        _messages(model),
    ]
    left_out = [part.inherited for part in parts if part.inherited] + list(_beyond(model))
    files = [Command(name, str(path)) for kind, name in FILES for path in model.paths(kind)]
    if left_out or not model.paths("model"):
        files = [Command("from", model.short_name)]
    heading = generated_heading(model.short_name)
    if left_out:
        heading += ["", "Taken over from the model that FROM names, because a Modelfile cannot say it:"]
        # A reason may quote a text of many lines, and only the first would be a comment.
        heading += [f"- {' '.join(text.split())}" for text in left_out]
    return render([*files, *(command for part in parts for command in part.commands)], heading)


def _text(name: str, text: str, model: Model | None = None) -> _Part:
    if not text:
        # Said, because create would recognise the weights' own format and add its template.
        format_ = detect(model.chat_template) if model and model.chat_template else None
        return _Part([Command(name, "")] if format_ else [])
    if name == "template" and (wrong := _mistake(text)):
        return _Part([], f"TEMPLATE: {wrong}")
    if name in builtins.KNOWN and (wrong := builtins.mistake(name, text)):
        return _Part([], f"{name.upper()}: {wrong}")
    command = Command(name, text)
    return _Part([command]) if _says(command) else _Part([], f"{name.upper()}: {_why(text)}")


def _mistake(template: str) -> str:
    try:
        Template(template)
    except TemplateError as error:
        return " ".join(str(error).split())
    return ""


def _parameter(model: Model, name: str, value: Any) -> _Part:
    try:
        known = check(name, value)
    except InvalidParameter as error:
        return _Part([], f"PARAMETER {name}: {error}")
    if name in DEPRECATED:
        return _Part([], f"PARAMETER {name}: deprecated")
    if name == "adapter_scale" and len(known) > (adapters := len(model.adapter_paths)):
        return _Part([], f"PARAMETER {name}: {len(known)} values for {adapters} adapters")
    if known == []:
        return _Part([], f"PARAMETER {name}: an empty list")
    commands = [
        Command("parameter", _value(item), name) for item in (known if isinstance(known, list) else [known])
    ]
    if all(map(_says, commands)):
        return _Part(commands)
    return _Part([], f"PARAMETER {name}: {_why(' '.join(command.value for command in commands))}")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return go_float(value) if isinstance(value, float) else str(value)


def _messages(model: Model) -> _Part:
    """All of them or none: a Modelfile's messages take the place of the base's."""
    commands = []
    for message in model.messages:
        role, content = message.get("role"), message.get("content", "")
        command = Command("message", str(content), str(role))
        if not isinstance(content, str) or set(message) - {"role", "content"} or not _says(command):
            return _Part([], f"{len(model.messages)} messages, of which one by {role!r} has no form")
        commands.append(command)
    return _Part(commands)


def _beyond(model: Model) -> Iterator[str]:
    """What no instruction exists for."""
    config = model.config
    for name in ("capabilities", "context_length", "embedding_length", "base_name", "remote_host"):
        if getattr(config, name):
            yield f"{name} of the configuration"
    if len(model.paths("model")) > 1:
        yield "weights in several files, which would be joined"
    for kind in sorted({layer.kind for layer in model.manifest.layers} - KINDS):
        yield f"layers of the kind {kind}"


def _says(command: Command) -> bool:
    # A replacement character may stand for bytes that were no text.
    return "\ufffd" not in command.value and can_say(command)


def _why(text: str) -> str:
    if "\n" in text and '"' in text:
        return "lines in it end with the quotes that would enclose it"
    return "characters that a Modelfile cannot hold" if text else "an empty text"
