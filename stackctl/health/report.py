"""One run as data: what every writer and channel is given."""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.health.check import Check
from stackctl.health.evaluator import CheckState, Event
from stackctl.health.model import Result, Status, badness, worst
from stackctl.health.moment import Moment


@dataclass(frozen=True, slots=True)
class Row:
    """One check in this run; `fresh` is False when its interval let it rest and this is its last result."""

    check: Check
    result: Result
    state: CheckState
    event: Event | None = None
    silenced: str | None = None
    fresh: bool = True

    @property
    def confirmed(self) -> bool:
        return self.result.status is self.state.hard

    @property
    def shown(self) -> bool:
        """A failure that was confirmed shows on while there is nothing to look at."""
        return not self.result.skipped or self.state.hard is not Status.OK


@dataclass(frozen=True, slots=True)
class Report:
    stack: str
    at: Moment
    rows: tuple[Row, ...]
    duration: float
    trouble: str | None = None
    generation: str | None = None
    # Nothing could be remembered (a full disk): no run can confirm anything, so what is seen has to count.
    unsaved: bool = False
    # What a monitoring system waits for could not be written: said even where silence means that all is well.
    unwritten: str | None = None

    def status(self, *, confirmed_only: bool = False) -> Status:
        """Worst of all; a check that only waits for a failing one adds nothing to it."""
        confirmed_only = confirmed_only and not self.unsaved
        rows = [row for row in self.rows if row.shown and row.result.blocked_by is None]
        if confirmed_only:
            return worst([row.state.hard for row in rows])
        return worst([row.result.status for row in rows])

    def troubled(self) -> list[Row]:
        """Rows that are not well, worst first; those that only wait for another are left out."""
        rows = [row for row in self.rows if row.shown and row.result.blocked_by is None]
        return sorted(
            (row for row in rows if row.result.status is not Status.OK),
            key=lambda row: -badness(row.result.status),
        )

    def summary(self) -> str:
        """What is wrong in one line, or how many checks are well."""
        rows = self.troubled()
        if not rows:
            count = sum(row.shown for row in self.rows)
            if not count and self.rows:
                # Asked for by name, it must say why it has nothing to say.
                skipped = "; ".join(f"{row.check.id}: {row.result.summary}" for row in self.rows)
                return f"nothing to look at: {skipped}"
            return f"{count} checks are well"
        first = rows[0]
        others = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        return f"{first.check.id}: {first.result.summary}{others}"

    def waiting(self) -> dict[str, list[str]]:
        """What was not looked at, by the check that is to blame."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.shown and row.result.blocked_by is not None:
                found.setdefault(row.result.blocked_by, []).append(row.check.id)
        return found
