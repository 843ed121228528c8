"""One line of progress, as clients of Ollama read it:
`{"status":..,"digest"?:..,"total"?:..,"completed"?:..}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Status:
    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"status": self.status}
        if self.digest:
            document["digest"] = self.digest
        if self.total:
            document["total"] = self.total
        if self.completed:
            document["completed"] = self.completed
        return document
