"""Who is next: a queue in which each client has its turn, however many requests another one has waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Round robin over clients, first come first served within each."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(items) for items in self._clients.values())

    def push(self, client: str, item: T) -> None:
        self._clients.setdefault(client, deque()).append(item)

    def remove(self, client: str, item: T) -> None:
        """Takes an item out, wherever it stands; one that is no longer there is no error."""
        items = self._clients.get(client)
        if items is None or item not in items:
            return
        items.remove(item)
        if not items:
            del self._clients[client]

    def take(self, client: str, item: T) -> None:
        """As `remove`, for one that is served: its client has had its turn."""
        self.remove(client, item)
        if client in self._clients:
            self._clients.move_to_end(client)

    def peek(self) -> T | None:
        for items in self._clients.values():
            return items[0]
        return None

    def pop(self) -> T | None:
        for client, items in self._clients.items():
            item = items.popleft()
            if items:
                self._clients.move_to_end(client)
            else:
                del self._clients[client]
            return item
        return None

    def __iter__(self) -> Iterator[T]:
        """In the order in which they would be served if nobody came or went."""
        columns = [list(items) for items in self._clients.values()]
        for row in range(max((len(column) for column in columns), default=0)):
            for column in columns:
                if row < len(column):
                    yield column[row]
