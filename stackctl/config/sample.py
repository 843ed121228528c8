"""The commented sample and the reference page, made from the one model, as the JSON Schema is (`schema`).

So they cannot disagree with what is accepted: a key that is added to the model appears in all of them.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stackctl.config.section import Written
from stackctl.config.stack import StackConfig

NOTHING: Mapping[str, Any] = {}


def starter(name: str, runtime: str) -> str:
    """What `stackctl init` writes: short, and every line in it works."""
    return f"""\
# A stack of stackctl. All keys with their defaults: stackctl config docs
name: {name}
runtime: {runtime}          # auto: docker where an engine answers, else local processes

gpu:
  mode: auto           # auto, nvidia, nvidia-runtime, cdi, rocm, none
  require_gpu: false   # true: refuse to come up on the CPU

services:
  engine:
    port: 11434
  webui:
    enabled: false     # Open WebUI on port 3000

# models:              # what `stackctl models sync` makes true
#   - llama3.2:3b
"""


def sample() -> str:
    """Every key, commented out with its default, under its explanation. With the first `# ` of each line
    taken away it is a stack file that says what an empty one says."""
    lines = ["# stack.yaml: every key with its default.", ""]
    lines += [f"# {line}" for line in _section(StackConfig, "")]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], pad: str, given: Mapping[str, Any] = NOTHING) -> Iterator[str]:
    """`given` is what the section above says of this one's defaults: they differ from place to place."""
    for key, field in fields(model):
        if field.description:
            yield f"{pad}# {field.description}"
        nested = nested_model(field)
        if nested is None:
            yield f"{pad}{key}: {_default(field, key, given)}"
        elif not _is_example(field):
            yield f"{pad}{key}:"
            yield from _section(nested, f"{pad}  ", _given(field))
        else:
            yield f"{pad}{key}: {default_text(field)}"
            yield from (f"{pad}# {line}" for line in _example(nested, field))


def _is_example(field: FieldInfo) -> bool:
    """Whether its keys are there only where somebody writes an entry of it."""
    return _is_list(field) or _is_map(field) or not isinstance(field.default, dict)


def _example(nested: type[BaseModel], field: FieldInfo) -> Iterator[str]:
    """What an entry of a list or a map, or a section that is not there by itself, would look like."""
    lines = list(_section(nested, ""))
    if _is_list(field):
        # The dash goes to the first key, below what explains it.
        first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
        yield from (f"  {line}" for line in lines[:first])
        yield f"  - {lines[first]}"
        yield from (f"    {line}" for line in lines[first + 1 :])
        return
    if _is_map(field):
        yield "  NAME:"
    yield from (f"{'    ' if _is_map(field) else '  '}{line}" for line in lines)


def _default(field: FieldInfo, key: str, given: Mapping[str, Any]) -> str:
    written = written_as(field)
    if key in given:
        value = given[key]
        return written.text(value) if written and isinstance(value, int | float) else json.dumps(value)
    return default_text(field)


def written_as(field: FieldInfo) -> Written | None:
    """How its value is written, where that is not as the program keeps it."""
    return next(_written(field.metadata), None) or next(_written(field.annotation), None)


def _written(part: Any) -> Iterator[Written]:
    if isinstance(part, Written):
        yield part
    parts = part if isinstance(part, list) else typing.get_args(part)
    if typing.get_origin(part) is typing.Annotated:
        parts = part.__metadata__
    for one in parts:
        yield from _written(one)


def reference() -> str:
    """The table of `docs/configuration.md`: path, type, default, meaning."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{path}` | {kind} | {default} | {text} |" for path, kind, default, text in _rows(StackConfig, "")
    ]
    return "\n".join(rows) + "\n"


def _rows(
    model: type[BaseModel], prefix: str, given: Mapping[str, Any] = NOTHING
) -> Iterator[tuple[str, str, str, str]]:
    for key, field in fields(model):
        path = f"{prefix}{key}"
        nested = nested_model(field)
        if nested is not None:
            text = field.description or (nested.__doc__ or "").strip().split("\n")[0]
            if _is_list(field) or default_text(field) == "null":
                yield path, "list" if _is_list(field) else "section", _code(default_text(field)), text
                yield from _rows(nested, f"{path}[]." if _is_list(field) else f"{path}.")
            else:
                yield from _rows(nested, f"{path}.", _given(field))
            continue
        default = _code(_default(field, key, given))
        yield path, kind_of(field), default, (field.description or "").replace("|", "\\|")


def _given(field: FieldInfo) -> Mapping[str, Any]:
    return field.default if isinstance(field.default, dict) else NOTHING


def fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    found = [one for one in classes(field.annotation) if issubclass(one, BaseModel)]
    return found[0] if len(found) == 1 else None


def default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "(required)"
    if isinstance(default, int | float) and (written := written_as(field)) is not None:
        return written.text(default)
    if isinstance(default, BaseModel):
        return json.dumps(default.model_dump(mode="json", by_alias=True))
    if isinstance(default, tuple):
        return json.dumps(
            [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in default]
        )
    return json.dumps(default, default=str)


def kind_of(field: FieldInfo) -> str:
    if (written := written_as(field)) is not None:
        return written.kind
    if choices := _choices(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    names = {"str": "text", "int": "number", "float": "number", "bool": "true or false", "Path": "path"}
    kinds = sorted({names.get(one.__name__, one.__name__) for one in classes(field.annotation)})
    text = " or ".join(kinds) or "value"
    return f"list of {text}" if _is_list(field) else f"map to {text}" if _is_map(field) else text


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(one) for one in typing.get_args(annotation)]
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


def classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [] if annotation is type(None) else [annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        arguments = arguments[1:]
    return [one for part in arguments for one in classes(part)]


def _is_list(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) in (tuple, list)


def _is_map(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) is dict


def _code(text: str) -> str:
    return text if text.startswith("(") else f"`{text}`"
