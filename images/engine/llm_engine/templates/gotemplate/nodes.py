"""The syntax tree of a Go template. `str(node)` is its source as Go prints it in error messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_engine.templates.gotemplate.quoting import go_quote


@dataclass(slots=True)
class Node:
    line: int
    column: int


@dataclass(slots=True)
class TextNode(Node):
    text: str

    def __str__(self) -> str:
        return go_quote(self.text)


@dataclass(slots=True)
class ListNode(Node):
    nodes: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@dataclass(slots=True)
class DotNode(Node):
    def __str__(self) -> str:
        return "."


@dataclass(slots=True)
class NilNode(Node):
    def __str__(self) -> str:
        return "nil"


@dataclass(slots=True)
class LiteralNode(Node):
    """A bool, a number or a string; `source` is how it was written."""

    value: Any
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(slots=True)
class FieldNode(Node):
    path: list[str]

    def __str__(self) -> str:
        return "".join("." + name for name in self.path)


@dataclass(slots=True)
class VariableNode(Node):
    """`$x.Field.Other`; path[0] is the variable with its dollar."""

    path: list[str]

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(slots=True)
class ChainNode(Node):
    """Fields of a parenthesised pipeline: `(index .A 1).Name`."""

    node: Node
    path: list[str]

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, PipeNode) else str(self.node)
        return inner + "".join("." + name for name in self.path)


@dataclass(slots=True)
class IdentifierNode(Node):
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class CommandNode(Node):
    args: list[Node]

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, PipeNode) else str(arg) for arg in self.args)


@dataclass(slots=True)
class PipeNode(Node):
    declared: list[str]
    assigns: bool
    commands: list[CommandNode]

    def __str__(self) -> str:
        start = ""
        if self.declared:
            start = ", ".join(self.declared) + (" = " if self.assigns else " := ")
        return start + " | ".join(map(str, self.commands))


@dataclass(slots=True)
class ActionNode(Node):
    pipe: PipeNode

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@dataclass(slots=True)
class BranchNode(Node):
    """`if`, `with` and `range`."""

    keyword: str
    pipe: PipeNode
    body: ListNode
    otherwise: ListNode | None

    def __str__(self) -> str:
        end = "{{end}}" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}{{{{end}}}}"
        return f"{{{{{self.keyword} {self.pipe}}}}}{self.body}{end}"


@dataclass(slots=True)
class TemplateNode(Node):
    name: str
    pipe: PipeNode | None

    def __str__(self) -> str:
        argument = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {go_quote(self.name)}{argument}}}}}"


@dataclass(slots=True)
class JumpNode(Node):
    """`break` or `continue`."""

    keyword: str

    def __str__(self) -> str:
        return f"{{{{{self.keyword}}}}}"
