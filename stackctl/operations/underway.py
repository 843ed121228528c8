"""The change of version that has begun and not ended: on disk before anything is stopped, gone at its end.

While it is there the version that runs, the one in force, stack.lock and the data may belong to different
versions. So nothing else that moves a version begins; the change itself is gone on with or taken back.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stackctl import durable
from stackctl.errors import PreflightError
from stackctl.operations import lockfile
from stackctl.operations.context import Stack
from stackctl.runtime.generations import Generation

FILE = "underway.json"


@dataclass(frozen=True)
class Underway:
    """`switching`: the other version may have been started, so the data may be its data.
    `proven`: the generation that has passed everything; only the books are not in order yet.
    """

    procedure: str
    run: str
    came_from: int
    going_to: int
    snapshot: str | None = None
    switching: bool = False
    proven: int | None = None
    since: str = ""

    def __str__(self) -> str:
        moving = f"from generation {self.came_from} to {self.going_to}"
        return f"the {self.procedure} {moving} of {self.since} was cut off"


def read(stack: Stack) -> Underway | None:
    path = _path(stack)
    try:
        return Underway(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        # It was written whole or not at all, so somebody else did this: better to stop than to guess.
        raise PreflightError(f"{path} cannot be read: {error}", fix=f"rm {path}; stackctl rollback") from None


def begin(stack: Stack, change: Underway) -> Underway:
    begun = replace(change, since=change.since or datetime.now(UTC).isoformat(timespec="seconds"))
    path = _path(stack)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.write(path, json.dumps(asdict(begun)) + "\n")
    durable.sync([path.parent])
    return begun


def end(stack: Stack) -> None:
    with contextlib.suppress(FileNotFoundError):
        _path(stack).unlink()
        durable.sync([_path(stack).parent])


def keep(stack: Stack, generation: Generation) -> None:
    """stack.lock and what is in force: what was cut off in here, `complete` brings to its end."""
    change = read(stack)
    if change is not None:
        begin(stack, replace(change, proven=generation.number))
    write_lock(stack, generation)
    stack.store.activate(generation)
    end(stack)


def write_lock(stack: Stack, generation: Generation) -> None:
    pins = {reference: pin for reference, pin in generation.lock.items() if pin}
    if pins:
        lockfile.write(stack.lock_file, pins)


def complete(stack: Stack) -> Underway | None:
    """What has to be gone on with or taken back; one that had proven itself is put in force here and now.
    Whoever calls holds the stack's lock."""
    proven = _proven(stack)
    if proven is not None:
        stack.say(f"completing what was cut off: generation {proven.number} is put in force")
        keep(stack, proven)
    return open_change(stack)


def open_change(stack: Stack) -> Underway | None:
    """What has to be gone on with or taken back first. Changes nothing: one that had proven itself is not
    open, and the next command that holds the lock completes it."""
    return None if _proven(stack) is not None else read(stack)


def in_force(stack: Stack) -> Generation | None:
    """The generation that is, or that `complete` will put there."""
    return _proven(stack) or stack.store.current()


def _proven(stack: Stack) -> Generation | None:
    change = read(stack)
    return stack.store.get(change.proven) if change is not None and change.proven is not None else None


def refuse_while_open(stack: Stack) -> None:
    change = open_change(stack)
    if change is not None:
        raise PreflightError(
            str(change),
            fix=f"stackctl {change.procedure} --resume (or --undo, which takes it back)",
        )


def _path(stack: Stack) -> Path:
    return stack.config.state_path / FILE
