"""Changing from one generation to another, with the data that belongs to it, in either direction."""

from __future__ import annotations

import json
import os
from pathlib import Path

from stackctl.backup import snapshot as snapshots
from stackctl.backup import sources
from stackctl.backup.snapshot import Snapshot
from stackctl.errors import PreflightError, UsageError
from stackctl.operations import underway
from stackctl.operations.context import Stack
from stackctl.operations.underway import Underway
from stackctl.runtime.generations import Generation
from stackctl.upgrade import gates


def generation(stack: Stack, number: int) -> Generation:
    found = stack.store.get(number)
    if found is None:
        there = ", ".join(str(one.number) for one in stack.store.all()) or "none"
        raise UsageError(f"there is no generation {number} (there: {there})", fix="stackctl generations")
    return found


def changed_services(old: Generation, new: Generation) -> list[str]:
    """Services that run another image in the new generation."""

    def pins(one: Generation) -> dict[str, str]:
        return {service: one.lock.get(ref, ref) for service, ref in one.meta.get("images", {}).items()}

    before, after = pins(old), pins(new)
    return [service for service in after if after[service] != before.get(service)]


def is_running(stack: Stack, wanted: Generation) -> bool:
    """Whether every service runs with exactly this generation's settings, and no other service does."""
    if wanted.runtime == "docker":
        from stackctl.runtime.docker import compose

        expected = compose.hashes(stack.name, wanted)
    else:
        document = json.loads(wanted.file.read_text())
        expected = {name: body["hash"] for name, body in document["services"].items()}
    status = stack.runtime.status()
    if any(one.state != "absent" and one.name not in expected for one in status.services):
        return False
    return all(
        status.service(name).state == "running" and status.service(name).config_hash == expected.get(name)
        for name in gates.services_of(wanted)
    )


def writers(stack: Stack, old: Generation, new: Generation) -> list[str]:
    """Services with authoritative data that run another image afterwards, as far as they run now."""
    moving = set(changed_services(old, new))
    status = stack.runtime.status()
    return [
        source.service
        for source in sources.of(stack.config)
        if source.service in moving and status.service(source.service).state in ("running", "restarting")
    ]


def to(stack: Stack, wanted: Generation) -> None:
    if wanted.runtime != stack.runtime.name:
        raise PreflightError(
            f"generation {wanted.number} is for runtime {wanted.runtime}, not {stack.runtime.name}",
            fix=f"set runtime: {wanted.runtime}, then stackctl up",
        )
    stack.say(f"switching to generation {wanted.number}")
    stack.runtime.up(wanted, progress=stack.say)


def back(
    stack: Stack,
    wanted: Generation,
    left: Generation | None,
    snapshot: Snapshot | None,
    *,
    restore: str,
    window: float,
    moves: Path,
    change: Underway,
) -> str:
    """Return to `wanted` with its data, and prove that it works again; then stack.lock says so, too.

    `restore` is `always` (the new version has only just run: its writes are set aside), `migrated` (only
    where a database has another shape than the old version knows) or `never`. `moves` is a file that
    remembers which data went where, for `forth`.
    """
    notes = []
    underway.begin(stack, change)
    if snapshot is not None and restore != "never":
        services = _to_restore(stack, wanted, left, snapshot, restore)
        if services:
            _stop(stack, services)
            moved = snapshots.restore(stack.config, snapshot, services, lambda *move: _note(moves, *move))
            notes.append(f"data of {', '.join(services)} as before")
            notes += [f"what the other version left is in {path}" for path in moved]
    to(stack, wanted)
    notes.append(gates.proven(stack, wanted, window))
    underway.keep(stack, wanted)
    return "; ".join(notes)


def forth(stack: Stack, wanted: Generation, *, window: float, moves: Path, change: Underway) -> str:
    """Undo of `back`: to the generation that it left, with the data that it set aside."""
    underway.begin(stack, change)
    lines = moves.read_text(encoding="utf-8").splitlines() if moves.exists() else []
    noted = [(str(move["service"]), Path(move["aside"])) for move in map(json.loads, lines)]
    if noted:
        _stop(stack, [service for service, _ in noted])
    notes = [
        f"data of {service} as it was"
        for service, aside in reversed(noted)
        if snapshots.take_back(stack.config, service, aside)
    ]
    to(stack, wanted)
    notes.append(gates.proven(stack, wanted, window))
    underway.keep(stack, wanted)
    return "; ".join(notes)


def _stop(stack: Stack, services: list[str]) -> None:
    running = [one.name for one in stack.runtime.status().services if one.state not in ("absent", "exited")]
    stack.runtime.stop([name for name in services if name in running])


def _note(moves: Path, service: str, aside: Path) -> None:
    with moves.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"service": service, "aside": str(aside)}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _to_restore(
    stack: Stack, wanted: Generation, left: Generation | None, snapshot: Snapshot, restore: str
) -> list[str]:
    kept = [name for name in snapshot.services if name in gates.services_of(wanted)]
    if restore == "migrated":
        migrated = snapshots.migrated(stack.config, snapshot)
        return [name for name in kept if name in migrated]
    changed = changed_services(wanted, left) if left is not None else kept
    return [name for name in kept if name in changed]
