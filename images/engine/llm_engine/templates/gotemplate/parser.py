"""Tokens to tree, with the checks that Go makes before a template runs: names exist, blocks close."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from llm_engine.templates.errors import TemplateSyntaxError
from llm_engine.templates.gotemplate.lexer import Kind, Lexer, Token
from llm_engine.templates.gotemplate.literals import char_value, number_value
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
from llm_engine.templates.gotemplate.quoting import go_quote, go_unquote

MAX_NESTING = 60
_SPACE = (Kind.SPACE,)


class Parser:
    """One text. `trees` maps the names of `define` and `block` to their bodies; "" is the text itself."""

    def __init__(self, text: str, functions: Collection[str]) -> None:
        self.text = text
        self.functions = functions
        self.trees: dict[str, ListNode] = {}
        self._lexer = Lexer(text)
        self._stream: Iterator[Token] = self._lexer.tokens()
        self._pushed: list[Token] = []
        self._line = 1
        self._vars: list[str] = ["$"]
        self._range_depth = 0
        self._nesting = 0

    def parse(self) -> ListNode:
        root, end = self._list(top=True)
        if end is not None:
            raise self._fail(f"unexpected {{{{{end}}}}}")
        self.trees[""] = root
        return root

    # Tokens

    def _fail(self, message: str) -> TemplateSyntaxError:
        return TemplateSyntaxError(f"template: :{self._line}: {message}")

    def _next(self) -> Token:
        token = self._pushed.pop() if self._pushed else next(self._stream)
        self._line = token.line
        return token

    def _back(self, token: Token) -> None:
        self._pushed.append(token)

    def _next_word(self) -> Token:
        token = self._next()
        while token.kind in _SPACE:
            token = self._next()
        return token

    def _peek(self) -> Token:
        token = self._next()
        self._back(token)
        return token

    def _peek_word(self) -> Token:
        token = self._next_word()
        self._back(token)
        return token

    def _expect(self, kind: Kind, context: str) -> Token:
        token = self._next_word()
        if token.kind is not kind:
            raise self._unexpected(token, context)
        return token

    def _unexpected(self, token: Token, context: str) -> TemplateSyntaxError:
        if token.kind is Kind.EOF:
            shown = "EOF"
        elif token.kind is Kind.KEYWORD:
            shown = f"<{token.text}>"
        else:
            shown = go_quote(token.text if len(token.text) <= 10 else token.text[:10])
            shown += "..." if len(token.text) > 10 else ""
        return self._fail(f"unexpected {shown} in {context}")

    def _where(self, token: Token) -> tuple[int, int]:
        start = self.text.rfind("\n", 0, token.pos) + 1
        return token.line, len(self.text[start : token.pos].encode("utf-8", "surrogatepass"))

    # Blocks

    def _list(self, top: bool = False) -> tuple[ListNode, str | None]:
        """Nodes up to `end` or `else` (returned; its keyword is consumed) or the end of the text."""
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._fail(f"blocks and parentheses are nested more than {MAX_NESTING} deep")
        nodes: list[Node] = []
        first = self._peek()
        line, column = self._where(first)
        ended: str | None = None
        while True:
            token = self._next()
            if token.kind is Kind.EOF:
                if not top:
                    raise self._fail("unexpected EOF")
                break
            if token.kind is Kind.TEXT:
                nodes.append(TextNode(*self._where(token), token.text))
                continue
            word = self._next_word()
            if word.kind is Kind.KEYWORD and word.text in ("end", "else"):
                ended = word.text
                break
            if word.kind is Kind.KEYWORD and word.text == "define":
                if not top:
                    raise self._unexpected(word, "command")
                self._define()
                continue
            self._back(word)
            nodes.append(self._action())
        self._nesting -= 1
        return ListNode(line, column, nodes), ended

    def _action(self) -> Node:
        token = self._next_word()
        if token.kind is not Kind.KEYWORD:
            self._back(token)
            where = self._where(token)
            return ActionNode(*where, self._pipeline("command", Kind.RIGHT))
        if token.text in ("if", "with", "range"):
            return self._branch(token)
        if token.text == "template":
            return self._template()
        if token.text == "block":
            return self._block()
        if token.text in ("break", "continue"):
            after = self._next_word()
            if after.kind is not Kind.RIGHT:
                raise self._unexpected(after, f"{{{{{token.text}}}}}")
            if self._range_depth == 0:
                raise self._fail(f"{{{{{token.text}}}}} outside {{{{range}}}}")
            return JumpNode(*self._where(token), token.text)
        raise self._unexpected(token, "command")

    def _branch(self, token: Token) -> BranchNode:
        keyword = token.text
        mark = len(self._vars)
        pipe = self._pipeline(keyword, Kind.RIGHT)
        self._range_depth += keyword == "range"
        body, ended = self._list()
        self._range_depth -= keyword == "range"
        otherwise: ListNode | None = None
        if ended == "else":
            follow = self._next_word()
            chained = follow.kind is Kind.KEYWORD and follow.text == keyword and keyword in ("if", "with")
            if chained:
                # `else if` is a nested branch whose `end` closes both.
                self._nesting += 1
                if self._nesting > MAX_NESTING:
                    raise self._fail(f"blocks and parentheses are nested more than {MAX_NESTING} deep")
                inner = self._branch(follow)
                self._nesting -= 1
                otherwise = ListNode(inner.line, inner.column, [inner])
                ended = "end"
            else:
                if follow.kind is not Kind.RIGHT:
                    raise self._unexpected(follow, "else")
                otherwise, ended = self._list()
                if ended == "else":
                    raise self._fail("expected end; found {{else}}")
                self._expect(Kind.RIGHT, "end")
        else:
            self._expect(Kind.RIGHT, "end")
        del self._vars[mark:]
        return BranchNode(*self._where(token), keyword, pipe, body, otherwise)

    def _body(self, context: str) -> ListNode:
        outer, depth = self._vars, self._range_depth
        self._vars, self._range_depth = ["$"], 0
        body, ended = self._list()
        if ended != "end":
            raise self._fail(f"unexpected {{{{{ended}}}}} in {context}")
        self._expect(Kind.RIGHT, "end")
        self._vars, self._range_depth = outer, depth
        return body

    def _name(self, context: str) -> tuple[str, Token]:
        token = self._next_word()
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            raise self._unexpected(token, context)
        return self._unquote(token), token

    def _define(self) -> None:
        name, _ = self._name("define clause")
        self._expect(Kind.RIGHT, "define clause")
        body = self._body("define clause")
        self._add(name, body)

    def _add(self, name: str, body: ListNode) -> None:
        empty = all(isinstance(n, TextNode) and not n.text.strip() for n in body.nodes)
        if name in self.trees:
            if empty:
                return
            known = self.trees[name]
            if not all(isinstance(n, TextNode) and not n.text.strip() for n in known.nodes):
                raise self._fail(f"template: multiple definition of template {go_quote(name)}")
        self.trees[name] = body

    def _template(self) -> TemplateNode:
        name, token = self._name("template clause")
        pipe: PipeNode | None = None
        follow = self._next_word()
        if follow.kind is not Kind.RIGHT:
            self._back(follow)
            pipe = self._pipeline("template clause", Kind.RIGHT)
        return TemplateNode(*self._where(token), name, pipe)

    def _block(self) -> TemplateNode:
        name, token = self._name("block clause")
        pipe = self._pipeline("block clause", Kind.RIGHT)
        body = self._body("block clause")
        self._add(name, body)
        return TemplateNode(*self._where(token), name, pipe)

    # Pipelines

    def _pipeline(self, context: str, closing: Kind) -> PipeNode:
        first = self._peek_word()
        declared, assigns = self._declarations(context)
        commands: list[CommandNode] = []
        while True:
            token = self._next_word()
            if token.kind is closing:
                break
            if token.kind in (
                Kind.BOOL, Kind.CHAR, Kind.DOT, Kind.FIELD, Kind.IDENTIFIER, Kind.NUMBER, Kind.NIL,
                Kind.RAW_STRING, Kind.STRING, Kind.VARIABLE, Kind.OPEN,
            ):  # fmt: skip
                self._back(token)
                commands.append(self._command())
                continue
            raise self._unexpected(token, context)
        if not commands:
            raise self._fail(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], LiteralNode | DotNode | NilNode):
                raise self._fail(f"non executable command in pipeline stage {stage}")
        self._vars.extend([] if assigns else declared)
        return PipeNode(*self._where(first), declared, assigns, commands)

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        """`$x :=`, `$x =`, and in a range `$i, $x :=`; puts everything back when there is none."""
        declared: list[str] = []
        while True:
            variable = self._next_word()
            if variable.kind is not Kind.VARIABLE:
                if declared:
                    raise self._unexpected(variable, context)
                self._back(variable)
                return [], False
            after = self._next()
            space: Token | None = None
            if after.kind is Kind.SPACE:
                space, after = after, self._next_word()
            if after.kind in (Kind.DECLARE, Kind.ASSIGN):
                assigns = after.kind is Kind.ASSIGN
                if assigns and variable.text not in self._vars:
                    raise self._fail(f"undefined variable {go_quote(variable.text)}")
                return [*declared, variable.text], assigns
            if after.kind is Kind.COMMA:
                if context != "range" or declared:
                    raise self._fail(f"too many declarations in {context}")
                declared.append(variable.text)
                continue
            self._back(after)
            if space is not None:
                self._back(space)
            self._back(variable)
            if declared:
                raise self._fail("range can only initialize variables")
            return [], False

    def _command(self) -> CommandNode:
        args: list[Node] = []
        first = self._peek_word()
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.CLOSE):
                self._back(token)
            elif token.kind is not Kind.PIPE:
                raise self._unexpected(token, "operand")
            break
        if not args:
            raise self._fail("empty command")
        return CommandNode(*self._where(first), args)

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._peek().kind is not Kind.FIELD:
            return node
        line, column = self._where(self._peek())
        path: list[str] = []
        while self._peek().kind is Kind.FIELD:
            path.append(self._next().text[1:])
        if isinstance(node, FieldNode):
            return FieldNode(line, column, node.path + path)
        if isinstance(node, VariableNode):
            return VariableNode(line, column, node.path + path)
        if isinstance(node, LiteralNode | NilNode | DotNode):
            raise self._fail(f"unexpected . after term {go_quote(str(node))}")
        return ChainNode(line, column, node, path)

    def _term(self) -> Node | None:
        token = self._next_word()
        where = self._where(token)
        kind = token.kind
        if kind is Kind.IDENTIFIER:
            if token.text not in self.functions:
                raise self._fail(f"function {go_quote(token.text)} not defined")
            return IdentifierNode(*where, token.text)
        if kind is Kind.DOT:
            return DotNode(*where)
        if kind is Kind.NIL:
            return NilNode(*where)
        if kind is Kind.VARIABLE:
            if token.text not in self._vars:
                raise self._fail(f"undefined variable {go_quote(token.text)}")
            return VariableNode(*where, [token.text])
        if kind is Kind.FIELD:
            return FieldNode(*where, [token.text[1:]])
        if kind is Kind.BOOL:
            return LiteralNode(*where, token.text == "true", token.text)
        if kind in (Kind.STRING, Kind.RAW_STRING):
            return LiteralNode(*where, self._unquote(token), token.text)
        if kind in (Kind.NUMBER, Kind.CHAR):
            try:
                value = char_value(token.text) if kind is Kind.CHAR else number_value(token.text)
            except ValueError as error:
                raise self._fail(str(error)) from None
            return LiteralNode(*where, value, token.text)
        if kind is Kind.OPEN:
            self._nesting += 1
            if self._nesting > MAX_NESTING:
                raise self._fail(f"blocks and parentheses are nested more than {MAX_NESTING} deep")
            pipe = self._pipeline("parenthesized pipeline", Kind.CLOSE)
            self._nesting -= 1
            return pipe
        self._back(token)
        return None

    def _unquote(self, token: Token) -> str:
        try:
            return go_unquote(token.text)
        except ValueError as error:
            raise self._fail(str(error)) from None
