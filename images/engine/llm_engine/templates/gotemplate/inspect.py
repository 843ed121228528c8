"""What a Go template can do, read from its tree: its names, its thinking tags, its tool-call tag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llm_engine.templates.gotemplate.nodes import (
    ActionNode,
    BranchNode,
    ChainNode,
    CommandNode,
    FieldNode,
    ListNode,
    Node,
    PipeNode,
    TemplateNode,
    TextNode,
    VariableNode,
)
from llm_engine.templates.gotemplate.template import Template


@dataclass(frozen=True, slots=True)
class GoTraits:
    names: frozenset[str]
    """Every field name in the template, without its dot."""
    tools: bool
    suffix: bool
    messages: bool
    thinking: tuple[str, str] | None
    """The texts around `.Thinking`."""
    tool_tag: str
    """What the model writes before a tool call; `{` when the template does not say."""


def inspect(template: Template) -> GoTraits:
    names: set[str] = set()
    for tree in template.trees.values():
        for node in walk(tree):
            if isinstance(node, FieldNode | ChainNode):
                names.update(node.path)
            elif isinstance(node, VariableNode):
                names.update(node.path[1:])
    return GoTraits(
        names=frozenset(names),
        tools="Tools" in names,
        suffix="Suffix" in names,
        messages="Messages" in names,
        thinking=_thinking_tags(template),
        tool_tag=_tool_tag(template),
    )


def walk(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    yield node
    match node:
        case ListNode():
            children: list[Node | None] = list(node.nodes)
        case BranchNode():
            children = [node.pipe, node.body, node.otherwise]
        case ActionNode():
            children = [node.pipe]
        case TemplateNode():
            children = [node.pipe]
        case PipeNode():
            children = list(node.commands)
        case CommandNode():
            children = list(node.args)
        case ChainNode():
            children = [node.node]
        case _:
            children = []
    for child in children:
        yield from walk(child)


def _mentions(node: Node, name: str) -> bool:
    return any(isinstance(n, FieldNode | VariableNode | ChainNode) and name in n.path for n in walk(node))


def _thinking_tags(template: Template) -> tuple[str, str] | None:
    for tree in template.trees.values():
        for node in walk(tree):
            if not isinstance(node, ListNode):
                continue
            for at, child in enumerate(node.nodes):
                if not isinstance(child, ActionNode) or not _mentions(child, "Thinking"):
                    continue
                before = node.nodes[at - 1] if at else None
                after = node.nodes[at + 1] if at + 1 < len(node.nodes) else None
                if isinstance(before, TextNode) and isinstance(after, TextNode):
                    opening, closing = before.text.strip(), after.text.strip()
                    if opening and closing:
                        return opening.split()[-1], closing.split()[0]
    return None


def _tool_tag(template: Template) -> str:
    for tree in template.trees.values():
        for node in walk(tree):
            if not isinstance(node, BranchNode) or node.keyword not in ("if", "range", "with"):
                continue
            if not _mentions(node.pipe, "ToolCalls"):
                continue
            for inner in walk(node.body):
                if isinstance(inner, TextNode) and inner.text.strip():
                    return _cut(inner.text)
    return "{"


def _cut(text: str) -> str:
    """The tag alone: `<tool_call>\n{"name"` is `<tool_call>`; a call that starts with its JSON has no tag."""
    tag = text.split("{", 1)[0].strip()
    return tag.rstrip("[ \n") or tag or "{"
