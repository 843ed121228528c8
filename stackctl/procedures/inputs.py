"""`--input k=v` against the inputs a procedure declares: all problems at once, before step one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackctl.config.durations import parse_duration
from stackctl.errors import ConfigError
from stackctl.procedures.model import FrontMatter, InputSpec
from stackctl.procedures.suggest import did_you_mean
from stackctl.redact import redacted_values

REDACTED = "***"


class InputsInvalid(ConfigError):
    """The inputs given do not fit the procedure."""


def resolve(front: FrontMatter, given: Mapping[str, Any]) -> dict[str, Any]:
    problems = [
        f"{name}: {front.id} has no such input{did_you_mean(name, front.inputs)}"
        for name in given
        if name not in front.inputs
    ]
    values: dict[str, Any] = {}
    for name, spec in front.inputs.items():
        if name not in given:
            if spec.required:
                problems.append(f"{name}: is required ({spec.help or spec.type})")
            values[name] = _convert(spec, spec.default) if spec.default is not None else None
            continue
        try:
            values[name] = _checked(spec, given[name])
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise InputsInvalid(
            f"{front.id}: the inputs do not fit",
            problems=problems,
            fix=f"stackctl procedures show {front.id}",
        )
    return values


def _checked(spec: InputSpec, raw: Any) -> Any:
    try:
        value = _convert(spec, raw)
    except ValueError:
        if spec.secret:
            raise ValueError(f"{REDACTED} is not a value of type {spec.type}") from None
        raise
    shown = REDACTED if spec.secret else repr(value)
    if spec.choices is not None and value not in spec.choices:
        raise ValueError(f"{shown} is not one of {', '.join(map(str, spec.choices))}")
    if spec.pattern is not None and not re.fullmatch(spec.pattern, str(value)):
        raise ValueError(f"{shown} does not match {spec.pattern}")
    return value


def _convert(spec: InputSpec, raw: Any) -> Any:
    kind = spec.type
    if kind == "boolean":
        if isinstance(raw, bool):
            return raw
        text = str(raw).lower()
        if text in ("true", "yes", "1", "on"):
            return True
        if text in ("false", "no", "0", "off"):
            return False
        raise ValueError(f"{raw!r} is not yes or no")
    if kind in ("integer", "number"):
        try:
            return int(str(raw)) if kind == "integer" else float(str(raw))
        except ValueError:
            raise ValueError(
                f"{raw!r} is not {'a whole number' if kind == 'integer' else 'a number'}"
            ) from None
    if kind == "duration":
        return parse_duration(str(raw))
    if kind == "path":
        return str(Path(os.path.expanduser(str(raw))).absolute())
    if kind == "list":
        return [str(item) for item in raw] if isinstance(raw, list) else [p for p in str(raw).split(",") if p]
    return str(raw)


def wrong_defaults(front: FrontMatter) -> list[str]:
    """A default is held to what a given value is held to."""
    found = []
    for name, spec in front.inputs.items():
        if spec.default is not None:
            try:
                _checked(spec, spec.default)
            except ValueError as error:
                found.append(f"inputs.{name}.default: {error}")
    return found


def redacted(front: FrontMatter, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: REDACTED if front.inputs[name].secret and value is not None else redacted_values(value)
        for name, value in values.items()
    }


def secrets(front: FrontMatter, values: Mapping[str, Any]) -> list[str]:
    """Every text that must not be seen; of a list, each item."""
    found = [values[name] for name, spec in front.inputs.items() if spec.secret and values.get(name)]
    return [str(text) for value in found for text in (value if isinstance(value, list) else [value])]


def fingerprint(values: Mapping[str, Any], salt: str) -> str:
    """Tells whether the inputs are the same as before without storing the secret ones."""
    return hashlib.sha256((salt + json.dumps(values, sort_keys=True, default=str)).encode()).hexdigest()


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputsInvalid(f"--input {name or '=***'}: expected NAME=VALUE")
        values[name] = value
    return values
