"""A parsed Go template: what its names are, and how it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from llm_engine.templates.errors import TemplateSyntaxError
from llm_engine.templates.gotemplate.functions import NAMES, table
from llm_engine.templates.gotemplate.interpreter import Interpreter
from llm_engine.templates.gotemplate.nodes import ListNode
from llm_engine.templates.gotemplate.parser import Parser
from llm_engine.templates.limits import Budget

MAX_SOURCE = 1024 * 1024


class Template:
    """Raises `TemplateSyntaxError` when the text does not parse; execution never changes the template."""

    __slots__ = ("source", "trees")

    def __init__(self, source: str, trees: Mapping[str, ListNode] | None = None) -> None:
        if trees is None:
            if len(source) > MAX_SOURCE:
                raise TemplateSyntaxError(f"template: : longer than {MAX_SOURCE} characters")
            parser = Parser(source, NAMES)
            parser.parse()
            trees = parser.trees
        self.source = source
        self.trees = trees

    @property
    def root(self) -> ListNode:
        return self.trees[""]

    def execute(self, data: Any, *, today: date | None = None, budget: Budget | None = None) -> str:
        """The text for `data`; `TemplateExecError` with Go's words when that fails."""
        functions = table(today or date.today())  # noqa: DTZ011 - "today" is the server's, as in Ollama
        return Interpreter(self.trees, functions, budget or Budget()).run(data)
