"""A radix tree of the token prefixes that the cache holds, and which sequences hold them.

Cells of a unified llama.cpp cache may belong to many sequences at once, so a prefix that several requests
share is stored once. The tree knows every sequence's computed tokens: its nodes are runs of tokens, and a
node lists the sequences whose cells cover it. Guarantees, for `match`: the source really holds exactly the
tokens asked for, and no longer prefix is held by anyone. For `oldest` and `trim`: least
recently used ends go first, and never one that a running sequence stands on. The tree computes nothing
itself; callers move cells as its answers say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.int32]


def common_prefix(a: TokenArray, b: TokenArray) -> int:
    """How many leading tokens two arrays share."""
    length = min(len(a), len(b))
    if length == 0 or a[0] != b[0]:
        return 0
    differ = a[:length] != b[:length]
    first = int(differ.argmax())
    return first if differ[first] else length


class Node:
    """A run of tokens below its parent. The run is never empty except at the root."""

    __slots__ = ("children", "holders", "last_used", "parent", "start", "tokens")

    def __init__(self, tokens: TokenArray, parent: Node | None, start: int) -> None:
        self.tokens = tokens
        self.parent = parent
        self.start = start
        self.children: dict[int, Node] = {}
        self.holders: set[int] = set()
        self.last_used = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class Match:
    """The longest held prefix: its length, and a sequence to copy it from."""

    length: int
    source: int


@dataclass(frozen=True)
class Overlap:
    """Tokens [start, end) that `source` already held; the newcomer's own copies of them are superfluous."""

    start: int
    end: int
    source: int


@dataclass(frozen=True)
class Cut:
    """Sequence `sequence` must forget everything from position `start` on; `gone` if nothing of it is
    left to keep.
    """

    sequence: int
    start: int
    freed: int
    gone: bool


class PrefixTree:
    """See the module. Sequences are small integers; `running` ones are never evicted."""

    def __init__(self) -> None:
        self.root = Node(np.empty(0, dtype=np.int32), None, 0)
        self.tails: dict[int, Node] = {}
        self.running: set[int] = set()
        self.cells = 0
        self._clock = 0

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def length(self, sequence: int) -> int:
        """How many tokens of a sequence the tree knows."""
        return self.tails[sequence].end

    def match(self, tokens: TokenArray) -> Match | None:
        """The longest prefix of `tokens` that some sequence holds; marks it as used."""
        now = self._tick()
        node = self.root
        at = 0
        source = -1
        while at < len(tokens):
            child = node.children.get(int(tokens[at]))
            if child is None:
                break
            shared = common_prefix(child.tokens, tokens[at:])
            child.last_used = now
            source = next(iter(child.holders))
            at += shared
            if shared < len(child.tokens):
                break
            node = child
        return Match(at, source) if at else None

    def resting(self, tokens: TokenArray) -> int:
        """How many of these tokens, all of them held, no running sequence stands on."""
        node, at, found = self.root, 0, 0
        while at < len(tokens):
            node = node.children[int(tokens[at])]
            size = min(len(node.tokens), len(tokens) - at)
            found += 0 if node.holders & self.running else size
            at += size
        return found

    def add(self, sequence: int, *, running: bool) -> None:
        """A sequence that holds nothing yet."""
        self.tails[sequence] = self.root
        self.root.holders.add(sequence)
        if running:
            self.running.add(sequence)

    def extend(self, sequence: int, tokens: TokenArray) -> list[Overlap]:
        """`sequence` has computed (or copied) `tokens` after what it held; tells which of them others
        hold too.
        """
        overlaps: list[Overlap] = []
        now = self._tick()
        node = self.tails[sequence]
        at = 0
        while at < len(tokens):
            child = node.children.get(int(tokens[at]))
            if child is None:
                child = Node(np.array(tokens[at:], dtype=np.int32), node, node.end)
                node.children[int(tokens[at])] = child
                self.cells += len(child.tokens)
            else:
                shared = common_prefix(child.tokens, tokens[at:])
                if shared < len(child.tokens):
                    child = self._split(child, shared)
                overlaps.append(Overlap(child.start, child.end, next(iter(child.holders))))
            child.holders.add(sequence)
            child.last_used = now
            at += len(child.tokens)
            node = child
        self.tails[sequence] = node
        return overlaps

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two; the upper half is new, so tails that point at the node stay right."""
        parent = node.parent
        assert parent is not None
        upper = Node(node.tokens[:at], parent, node.start)
        upper.holders = set(node.holders)
        upper.last_used = node.last_used
        parent.children[int(node.tokens[0])] = upper
        node.tokens = node.tokens[at:]
        node.start += at
        node.parent = upper
        upper.children[int(node.tokens[0])] = node
        return upper

    def remove(self, sequence: int) -> int:
        """Forget a sequence; returns how many cells that frees."""
        freed = self._release(sequence, self.tails[sequence], self.root)
        self.root.holders.discard(sequence)
        del self.tails[sequence]
        self.running.discard(sequence)
        return freed

    def _release(self, sequence: int, tail: Node, upto: Node) -> int:
        freed = 0
        node: Node = tail
        while node is not upto:
            parent = node.parent
            assert parent is not None
            node.holders.discard(sequence)
            if not node.holders:
                freed += len(node.tokens)
                del parent.children[int(node.tokens[0])]
            else:
                self._merge(node)
            node = parent
        self.cells -= freed
        return freed

    @staticmethod
    def _merge(node: Node) -> None:
        """Join a node with its only child where both have the same holders: no tail can be between them."""
        if len(node.children) != 1:
            return
        (child,) = node.children.values()
        if child.holders != node.holders or node.parent is None:
            return
        child.tokens = np.concatenate((node.tokens, child.tokens))
        child.start = node.start
        child.parent = node.parent
        node.parent.children[int(child.tokens[0])] = child

    def truncate(self, sequence: int, length: int) -> bool:
        """Forget what a sequence holds beyond `length`; False, and no change, if another sequence holds
        any of it.
        """
        node = self.tails[sequence]
        while node.end > length and node.parent is not None:
            if len(node.holders) > 1:
                return False
            if node.start < length:
                self._split(node, length - node.start)
                break
            node = node.parent
        tail = self.tails[sequence]
        upto = tail
        while upto.end > length and upto.parent is not None:
            upto = upto.parent
        self._release(sequence, tail, upto)
        self.tails[sequence] = upto
        return True

    def retire(self, sequence: int) -> bool:
        """A running sequence ended. False: others hold all it held, so it need not be kept (and was
        removed).
        """
        self.running.discard(sequence)
        tail = self.tails[sequence]
        if tail is self.root or len(tail.holders) > 1:
            self.remove(sequence)
            return False
        return True

    def drop(self, sequence: int) -> Cut:
        """Give up a sequence id, with all that only it held."""
        return Cut(sequence, 0, self.remove(sequence), True)

    def oldest(self) -> int | None:
        """The idle sequence whose end was used least recently."""
        idle = (s for s in self.tails if s not in self.running)
        return min(idle, key=lambda s: self.tails[s].last_used, default=None)

    def tokens(self, sequence: int) -> TokenArray:
        """All that a sequence holds."""
        parts: list[TokenArray] = []
        node: Node | None = self.tails[sequence]
        while node is not None:
            parts.append(node.tokens)
            node = node.parent
        return np.concatenate(parts[::-1])

    def trim(self, sequence: int, cells: int) -> Cut:
        """Shorten one idle sequence by up to `cells`; an idle sequence's last node is its own alone."""
        tail = self.tails[sequence]
        parent = tail.parent
        if parent is None or len(tail.holders) > 1:
            return Cut(sequence, 0, self.remove(sequence), True)
        if cells < len(tail.tokens):
            tail.tokens = tail.tokens[:-cells]
            self.cells -= cells
            return Cut(sequence, tail.end, cells, False)
        start, freed = tail.start, len(tail.tokens)
        self._release(sequence, tail, parent)
        self.tails[sequence] = parent
        if parent is self.root or len(parent.holders) > 1:
            self.remove(sequence)
            return Cut(sequence, 0, freed, True)
        return Cut(sequence, start, freed, False)

    def nodes(self) -> Iterator[Node]:
        """Every node but the root."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())
