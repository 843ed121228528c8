"""Executing a Go template that knows turns (`.System .Prompt .Response`) instead of a list of messages.

The template runs once for each completed turn; in the last turn everything after `.Response` is left out,
since the model is about to write what comes there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llm_engine.chat.messages import Message
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.gotemplate.nodes import (
    ActionNode,
    BranchNode,
    CommandNode,
    FieldNode,
    ListNode,
    Node,
    PipeNode,
)


def with_response(template: Template) -> Template:
    """The template with `{{ .Response }}` at its end."""
    root = template.root
    command = CommandNode(0, 0, [FieldNode(0, 0, ["Response"])])
    action = ActionNode(0, 0, PipeNode(0, 0, [], False, [command]))
    return Template(
        template.source, {**template.trees, "": ListNode(root.line, root.column, [*root.nodes, action])}
    )


def cut_at_response(template: Template) -> Template:
    """The template up to and with its first `.Response`."""
    return Template(template.source, {**template.trees, "": _Cutter().list(template.root)})


class _Cutter:
    """Copies a tree until `.Response` was met; conditions of branches are not looked into."""

    def __init__(self) -> None:
        self.done = False

    def list(self, node: ListNode) -> ListNode:
        kept: list[Node] = []
        for child in node.nodes:
            if self.done:
                break
            kept.append(self._node(child))
        return ListNode(node.line, node.column, kept)

    def _node(self, node: Node) -> Node:
        if isinstance(node, BranchNode):
            body = self.list(node.body)
            otherwise = None if self.done or node.otherwise is None else self.list(node.otherwise)
            return BranchNode(node.line, node.column, node.keyword, node.pipe, body, otherwise)
        if isinstance(node, ActionNode):
            for command in node.pipe.commands:
                if any(isinstance(arg, FieldNode) and "Response" in arg.path for arg in command.args):
                    self.done = True
        return node


Run = Callable[[Template, dict[str, Any]], str]


def execute(template: Template, messages: Sequence[Message], run: Run) -> str:
    """`run` executes a template with the values of one turn."""
    out: list[str] = []
    turn = {"System": "", "Prompt": "", "Response": ""}

    def close() -> None:
        out.append(run(template, dict(turn)))
        turn.update(System="", Prompt="", Response="")

    for message in messages:
        if message.role == "system":
            if turn["Prompt"] or turn["Response"]:
                close()
            turn["System"] = message.content
        elif message.role == "user":
            if turn["Response"]:
                close()
            turn["Prompt"] = message.content
        elif message.role == "assistant":
            turn["Response"] = message.content
    out.append(run(cut_at_response(template), dict(turn)))
    return "".join(out)
