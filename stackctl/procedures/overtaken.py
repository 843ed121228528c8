"""A run that was cut off is only gone on with while it is the newest change of the stack's version.

Its later steps, and its undo, name generations and data of the moment at which it stopped. When others have
changed the version since, going on would take their work away without a word.
"""

from __future__ import annotations

from pathlib import Path

from stackctl.errors import PreflightError
from stackctl.operations import underway
from stackctl.procedures import journal
from stackctl.procedures.host import Host
from stackctl.procedures.journal import RunRecord


def refuse_when_overtaken(record: RunRecord, runs: Path, host: Host | None) -> None:
    if host is None or not _of_versions(record):
        return
    change = underway.read(host.handle)
    if change is not None and change.run == record.id:
        return  # nothing else could have changed the version since
    reason = _later(record, runs) or _elsewhere(record, host)
    if reason is not None:
        raise PreflightError(
            f"run {record.id} cannot be gone on with: {reason}", fix=f"stackctl run {record.procedure}"
        )


def _of_versions(record: RunRecord) -> bool:
    return bool(_generations(record))


def _generations(record: RunRecord) -> set[int]:
    """Those that a run had to do with."""
    named = {step.data.get(key) for step in record.steps.values() for key in ("generation", "came_from")}
    return {number for number in named if number is not None}


def _later(record: RunRecord, runs: Path) -> str | None:
    """Another that has changed the version; to start what is in force anyway is no change."""
    for other in journal.history(runs):
        if other.id == record.id or other.touched <= record.touched:
            continue
        concerned = _generations(other)
        moved = len(concerned | ({other.in_force} - {None})) > 1
        if concerned and moved and any(step.changed for step in other.steps.values()):
            return f"{other.procedure} has changed the version since (run {other.id})"
    return None


def _elsewhere(record: RunRecord, host: Host) -> str | None:
    now = host.facts()["generation"]
    if record.in_force is None or now == record.in_force or now in _generations(record):
        return None
    force = f"generation {now} is in force" if now is not None else "nothing is in force"
    return f"{force}, and it began with generation {record.in_force}"
