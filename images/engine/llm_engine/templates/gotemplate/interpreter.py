"""Walks the tree of a Go template over its data, as `text/template` does, inside a budget.

A missing map key is `None` (Go's nil interface) and prints `<no value>`, also with Go's `missingkey=zero`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NoReturn

from llm_engine.templates.errors import TemplateExecError
from llm_engine.templates.gotemplate.comparing import CompareError
from llm_engine.templates.gotemplate.functions import CallError, Function
from llm_engine.templates.gotemplate.nodes import (
    ActionNode,
    BranchNode,
    ChainNode,
    CommandNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    JumpNode,
    ListNode,
    LiteralNode,
    NilNode,
    Node,
    PipeNode,
    TemplateNode,
    TextNode,
    VariableNode,
)
from llm_engine.templates.gotemplate.printing import show, sorted_items
from llm_engine.templates.gotemplate.quoting import go_quote
from llm_engine.templates.gotemplate.values import GoStruct, truth, type_name
from llm_engine.templates.limits import Budget

_ABSENT = object()
_Cell = list[Any]


class _Flow(Enum):
    NEXT = auto()
    BREAK = auto()
    CONTINUE = auto()


class Interpreter:
    def __init__(
        self, trees: Mapping[str, ListNode], functions: Mapping[str, Function], budget: Budget
    ) -> None:
        self.trees = trees
        self.functions = functions
        self.budget = budget
        self.out: list[str] = []
        self._name = ""
        self._depth = 0
        self._vars: list[tuple[str, _Cell]] = []

    def run(self, data: Any) -> str:
        self._vars = [("$", [data])]
        self._walk(data, self.trees[""])
        return "".join(self.out)

    def _fail(self, node: Node, message: str) -> NoReturn:
        where = f"template: {self._name}:{node.line}:{node.column}"
        raise TemplateExecError(f"{where}: executing {go_quote(self._name)} at <{_short(node)}>: {message}")

    def _write(self, text: str) -> None:
        self.budget.text(len(text))
        self.out.append(text)

    # Statements

    def _walk(self, dot: Any, node: Node) -> _Flow:
        self.budget.step()
        match node:
            case TextNode():
                self._write(node.text)
            case ActionNode():
                value = self._pipe(dot, node.pipe)
                if not node.pipe.declared:
                    self._write("<no value>" if value is None else show(value))
            case ListNode():
                for child in node.nodes:
                    flow = self._walk(dot, child)
                    if flow is not _Flow.NEXT:
                        return flow
            case BranchNode():
                mark = len(self._vars)
                flow = self._range(dot, node) if node.keyword == "range" else self._branch(dot, node)
                del self._vars[mark:]
                return flow
            case TemplateNode():
                self._template(dot, node)
            case JumpNode():
                return _Flow.BREAK if node.keyword == "break" else _Flow.CONTINUE
        return _Flow.NEXT

    def _branch(self, dot: Any, node: BranchNode) -> _Flow:
        value = self._pipe(dot, node.pipe)
        if truth(value):
            return self._walk(value if node.keyword == "with" else dot, node.body)
        if node.otherwise is not None:
            return self._walk(dot, node.otherwise)
        return _Flow.NEXT

    def _range(self, dot: Any, node: BranchNode) -> _Flow:
        pipe = node.pipe
        value = self._pipe(dot, pipe)
        mark = len(self._vars)
        turned = False
        for key, item in self._items(node, value):
            turned = True
            self.budget.step()
            if pipe.assigns:
                for name, part in zip(pipe.declared, _pair(pipe.declared, key, item), strict=False):
                    self._assign(name, part)
            elif pipe.declared:
                # The declaring pipeline has already put the whole value on the stack.
                del self._vars[mark - len(pipe.declared) :]
                parts = _pair(pipe.declared, key, item)
                self._vars.extend((name, [part]) for name, part in zip(pipe.declared, parts, strict=True))
                mark = len(self._vars)
            flow = self._walk(item, node.body)
            del self._vars[mark:]
            if flow is _Flow.BREAK:
                break
        if not turned and node.otherwise is not None:
            return self._walk(dot, node.otherwise)
        return _Flow.NEXT

    def _items(self, node: BranchNode, value: Any) -> Iterator[tuple[Any, Any]]:
        if value is None:
            return
        if isinstance(value, dict):
            yield from sorted_items(value)
        elif isinstance(value, list | tuple):
            yield from enumerate(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipe.declared) > 1:
                self._fail(node.pipe, f"can't use {value} to iterate over more than one variable")
            yield from ((at, at) for at in range(value))
        else:
            self._fail(node.pipe, f"range can't iterate over {show(value)}")

    def _template(self, dot: Any, node: TemplateNode) -> None:
        tree = self.trees.get(node.name)
        if tree is None:
            self._fail(node, f"template {go_quote(node.name)} not defined")
        data = None if node.pipe is None else self._pipe(dot, node.pipe)
        self._depth += 1
        self.budget.depth(self._depth)
        outer_vars, outer_name = self._vars, self._name
        self._vars, self._name = [("$", [data])], node.name
        self._walk(data, tree)
        self._vars, self._name = outer_vars, outer_name
        self._depth -= 1

    # Variables

    def _lookup(self, name: str) -> _Cell:
        for known, cell in reversed(self._vars):
            if known == name:
                return cell
        raise TemplateExecError(f"template: undefined variable {go_quote(name)}")

    def _assign(self, name: str, value: Any) -> None:
        self._lookup(name)[0] = value

    # Expressions

    def _pipe(self, dot: Any, pipe: PipeNode) -> Any:
        value: Any = _ABSENT
        for command in pipe.commands:
            value = self._command(dot, command, value)
        for name in pipe.declared:
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._vars.append((name, [value]))
        return value

    def _command(self, dot: Any, command: CommandNode, final: Any) -> Any:
        self.budget.step()
        first = command.args[0]
        if isinstance(first, IdentifierNode):
            return self._function(dot, first, command, command.args[1:], final)
        if isinstance(first, NilNode):
            self._fail(first, "nil is not a command")
        if isinstance(first, FieldNode | VariableNode | ChainNode):
            given = len(command.args) > 1 or final is not _ABSENT
            return self._value(dot, first, given)
        if len(command.args) > 1 or final is not _ABSENT:
            self._fail(first, f"can't give argument to non-function {first}")
        return self._value(dot, first)

    def _value(self, dot: Any, node: Node, given_arguments: bool = False) -> Any:
        match node:
            case DotNode():
                return dot
            case NilNode():
                return None
            case LiteralNode():
                return node.value
            case FieldNode():
                return self._fields(node, dot, node.path, given_arguments)
            case VariableNode():
                start = self._lookup(node.path[0])[0]
                if given_arguments and len(node.path) == 1:
                    self._fail(node, f"can't give argument to non-function {node}")
                return self._fields(node, start, node.path[1:], given_arguments)
            case ChainNode():
                if isinstance(node.node, NilNode):
                    self._fail(node, f"indirection through explicit nil in {node}")
                return self._fields(node, self._value(dot, node.node), node.path, given_arguments)
            case PipeNode():
                return self._pipe(dot, node)
            case IdentifierNode():
                return self._function(dot, node, node, [], _ABSENT)
        self._fail(node, f"can't evaluate command {go_quote(str(node))}")

    def _fields(self, node: Node, value: Any, path: Sequence[str], given_arguments: bool) -> Any:
        inside = ""  # what Go calls the static type of `value`, where that is not its own
        for name in path:
            holder = value
            value = self._field(node, holder, name, inside)
            inside = "interface {}" if isinstance(holder, dict) else ""
            if given_arguments and name is path[-1]:
                what = (
                    "is not a method but has arguments" if inside else "has arguments but cannot be invoked"
                )
                self._fail(node, f"{name} {what}" + ("" if inside else " as function"))
        return value

    def _field(self, node: Node, value: Any, name: str, inside: str) -> Any:
        if isinstance(value, GoStruct):
            if name in value.methods:
                return value.methods[name]()
            if name in value.fields:
                return value.fields[name]
        elif isinstance(value, dict):
            return value.get(name)
        elif value is None:
            self._fail(node, f"nil pointer evaluating interface {{}}.{name}")
        self._fail(node, f"can't evaluate field {name} in type {inside or type_name(value)}")

    def _function(
        self, dot: Any, node: IdentifierNode, command: Node, args: Sequence[Node], final: Any
    ) -> Any:
        name = node.name
        function = self.functions[name]
        count = len(args) + (final is not _ABSENT)
        most = function.at_most
        if count < function.at_least or (most is not None and count > most):
            want = f"at least {function.at_least}" if most is None else f"{most}"
            self._fail(node, f"wrong number of args for {name}: want {want} got {count}")
        if name in ("and", "or"):
            return self._logic(dot, args, final, stop_at=name == "or")
        values = [self._value(dot, arg) for arg in args]
        if final is not _ABSENT:
            values.append(final)
        self._check_types(function, command, args, values)
        self.budget.step()
        try:
            result = function.call(values)
        except (CallError, CompareError) as error:
            self._fail(command, f"error calling {name}: {error}")
        if isinstance(result, str):
            self.budget.text(len(result))
        return result

    def _check_types(
        self, function: Function, command: Node, args: Sequence[Node], values: Sequence[Any]
    ) -> None:
        for at, (want, value) in enumerate(zip(function.wants, values, strict=False)):
            if type_name(value) == want:
                continue
            node = args[at] if at < len(args) else command
            if isinstance(node, LiteralNode):
                self._fail(node, f"expected {want}; found {node}")
            if value is None:
                self._fail(node, f"invalid value; expected {want}")
            self._fail(node, f"wrong type for value; expected {want}; got {type_name(value)}")

    def _logic(self, dot: Any, args: Sequence[Node], final: Any, *, stop_at: bool) -> Any:
        """The first argument that decides, or the last one; the rest are not evaluated."""
        value: Any = None
        for arg in args:
            value = self._value(dot, arg)
            if truth(value) is stop_at:
                return value
        return value if final is _ABSENT else final


def _pair(declared: Sequence[str], key: Any, item: Any) -> tuple[Any, ...]:
    return (key, item) if len(declared) > 1 else (item,)


def _short(node: Node) -> str:
    text = str(node)
    return text if len(text) <= 20 else text[:20] + "..."
