"""A conversation in the shape that Hugging Face templates expect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Arguments(dict[str, Any]):
    """Arguments of a past tool call: a mapping, and JSON text where a template treats it as a string.

    Templates disagree on which of the two it is; a template that concatenates or prints it gets JSON.
    """

    def _text(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    __str__ = _text

    def __add__(self, other: str) -> str:
        return self._text() + other

    def __radd__(self, other: str) -> str:
        return other + self._text()


def arguments(value: Mapping[str, Any], *, as_text: bool) -> Any:
    return json.dumps(value, ensure_ascii=False) if as_text else Arguments(value)
