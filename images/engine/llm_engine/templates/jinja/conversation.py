"""A conversation in the shape that Hugging Face templates expect."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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


def older_names(source: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Variables of templates from before `tools` had its name: the functions as JSON text, and the time."""
    if not re.search(r"\bfunctions\b", source) or re.search(r"\btools\b", source):
        return {}
    functions = [tool["function"] for tool in tools]
    now = datetime.now(UTC).strftime("%b %d %Y %H:%M:%S GMT")
    return {"functions": json.dumps(functions, ensure_ascii=False), "datetime": now}


def arguments(value: Mapping[str, Any], *, as_text: bool) -> Any:
    return json.dumps(value, ensure_ascii=False) if as_text else Arguments(value)
