"""A compiled Jinja chat template: messages, tools and settings in, prompt text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateSyntaxError as JinjaSyntaxError

from llm_engine.templates.errors import (
    TemplateError,
    TemplateExecError,
    TemplateLimitError,
    TemplateRefused,
    TemplateSyntaxError,
)
from llm_engine.templates.jinja.sandbox import Sandbox, in_budget
from llm_engine.templates.limits import Budget

MAX_SOURCE = 1024 * 1024
_sandbox = Sandbox()


class ChatTemplate:
    """Raises `TemplateSyntaxError` when the text is not Jinja."""

    __slots__ = ("_template", "source")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(f"chat template: longer than {MAX_SOURCE} characters")
        self.source = source
        try:
            self._template = _sandbox.from_string(source)
        except JinjaSyntaxError as error:
            raise TemplateSyntaxError(f"chat template: line {error.lineno}: {error.message}") from None
        except (RecursionError, MemoryError, ValueError, SyntaxError, OverflowError) as error:
            raise TemplateSyntaxError(f"chat template: cannot be compiled: {error}") from None

    def render(
        self, context: Mapping[str, Any], *, now: datetime | None = None, budget: Budget | None = None
    ) -> str:
        spent = budget or Budget()
        try:
            return in_budget(spent, now or datetime.now().astimezone(), lambda: self._collect(context, spent))
        except TemplateError:
            raise
        except SecurityError as error:
            raise TemplateExecError(f"chat template: not allowed: {error}") from None
        except jinja2.TemplateError as error:
            raise TemplateExecError(f"chat template: {error}") from None
        except (RecursionError, MemoryError) as error:
            raise TemplateLimitError(f"the template used too much: {type(error).__name__}") from None
        except Exception as error:  # noqa: BLE001 - a template can make any operation of Python fail
            raise TemplateExecError(f"chat template: {type(error).__name__}: {error}") from None

    def _collect(self, context: Mapping[str, Any], budget: Budget) -> str:
        parts: list[str] = []
        for part in self._chunks(context):
            budget.step()
            budget.text(len(part))
            parts.append(part)
        return "".join(parts)

    def _chunks(self, context: Mapping[str, Any]) -> Iterator[str]:
        return self._template.generate(dict(context))


__all__ = ["ChatTemplate", "TemplateRefused"]
