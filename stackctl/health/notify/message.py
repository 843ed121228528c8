"""What people are told: one change of one check, or one digest of several."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from stackctl.health.evaluator import Kind
from stackctl.health.model import Status, badness
from stackctl.health.moment import iso
from stackctl.health.report import Report, Row


@dataclass(frozen=True, slots=True)
class Message:
    """Plain data, so that it can wait in the state file until it is delivered."""

    stack: str
    host: str
    kind: str
    status: str
    before: str
    check: str
    title: str
    summary: str
    fix: str
    time: str
    since: str | None = None
    details: tuple[str, ...] = ()
    remedy: str | None = None
    changes: int = 1
    peak: int = 0
    parts: tuple[Message, ...] = ()

    @property
    def subject(self) -> str:
        if self.parts:
            return f"[{self.stack}] {self.status}: {len(self.parts)} checks changed"
        if self.kind == REMEDY:
            return f"[{self.stack}] remedy for {self.status}: {self.check}"
        word = {
            Kind.PROBLEM: self.status,
            Kind.RECOVERY: "RECOVERED",
            Kind.FLAPPING: "FLAPPING",
            Kind.STABLE: f"STABLE, {self.status}",
            Kind.REMINDER: f"still {self.status}",
        }.get(Kind(self.kind), self.status)
        return f"[{self.stack}] {word}: {self.check}"

    @property
    def text(self) -> str:
        if self.parts:
            return "\n".join(
                f"{part.subject}{part.often} - {part.summary}{part.mended}" for part in self.parts
            )
        lines = [self.summary, *self.details]
        if self.kind == Kind.FLAPPING:
            lines.append("The state changes too often; nothing more is sent until it is calm.")
        if self.status != Status.OK.name:
            lines.append(f"fix: {self.fix}")
        if self.remedy:
            lines.append(f"remedy: {self.remedy}")
        if self.since:
            lines.append(f"since {self.since} on {self.host}")
        return "\n".join(lines)

    @property
    def often(self) -> str:
        return f" ({self.changes} changes)" if self.changes > 1 else ""

    @property
    def mended(self) -> str:
        return f" (remedy: {self.remedy})" if self.remedy else ""

    @property
    def weight(self) -> int:
        """How bad the worst end of the change is: a recovery weighs as much as its failure did."""
        ends = badness(Status[self.status]), badness(Status[self.before])
        return max(*ends, self.peak, *(part.weight for part in self.parts))

    def payload(self) -> dict[str, Any]:
        """All placeholders and the whole JSON body of a webhook."""
        values = asdict(self)
        values["subject"], values["text"] = self.subject, self.text
        values["parts"] = [part.payload() for part in self.parts]
        values["details"] = list(self.details)
        return values

    def dump(self) -> dict[str, Any]:
        values = asdict(self)
        values["parts"] = [part.dump() for part in self.parts]
        return values

    @classmethod
    def load(cls, data: dict[str, Any]) -> Message:
        values = dict(data)
        values["details"] = tuple(values.get("details", ()))
        values["parts"] = tuple(cls.load(part) for part in values.get("parts", ()))
        return cls(**values)


REMEDY = "remedy"


def remedied(report: Report, row: Row, host: str, outcome: str) -> Message:
    """What a remedy came to; its check's failure was told before it was started."""
    return Message(
        stack=report.stack,
        host=host,
        kind=REMEDY,
        status=row.state.hard.name,
        before=row.state.hard.name,
        check=row.check.id,
        title=row.check.title,
        summary=row.result.summary,
        fix=row.result.fix or row.check.do,
        time=iso(report.at.wall),
        since=iso(row.state.hard_since.wall) if row.state.hard_since else None,
        remedy=outcome,
    )


def from_row(report: Report, row: Row, host: str, *, include_output: bool) -> Message:
    assert row.event is not None
    return Message(
        stack=report.stack,
        host=host,
        kind=str(row.event.kind),
        status=row.event.status.name,
        before=row.event.before.name,
        check=row.check.id,
        title=row.check.title,
        summary=f"no longer watched: {row.result.summary}" if row.result.skipped else row.result.summary,
        fix=row.result.fix or row.check.do,
        time=iso(report.at.wall),
        since=iso(row.state.hard_since.wall) if row.state.hard_since else None,
        details=row.result.details if include_output else (),
    )


def digest(messages: list[Message]) -> Message:
    """One message for many; several about one check become the last, from where the first began."""
    latest: dict[str, Message] = {}
    for message in messages:
        for part in message.parts or (message,):
            earlier = latest.pop(part.check, None)
            if earlier is not None:
                part = replace(
                    part,
                    before=earlier.before,
                    changes=earlier.changes + part.changes,
                    peak=max(earlier.weight, part.weight),
                )
            latest[part.check] = part
    parts = tuple(sorted(latest.values(), key=lambda part: -badness(Status[part.status])))
    first = parts[0]
    return Message(
        stack=first.stack,
        host=first.host,
        kind="digest",
        status=first.status,
        before=max(parts, key=lambda part: badness(Status[part.before])).before,
        check="digest",
        title="several checks",
        summary=f"{len(parts)} checks changed",
        fix="stackctl health",
        time=messages[-1].time,
        parts=parts,
    )
