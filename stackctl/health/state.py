"""The memory between two runs: one JSON file, one run at a time.

- the lock is `flock`, so the kernel releases it whatever happens to the holder;
- the file is replaced atomically and synced, so a crash leaves the old or the new one;
- a file that cannot be read is set aside under a telling name and the run starts afresh: a broken memory must
  not stop the watching, and must not be thrown away either.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stackctl.health.evaluator import CheckState
from stackctl.health.model import Status
from stackctl.health.moment import Moment

SCHEMA = 1
_MOMENTS = {"hard_since", "seen_at", "observed_at", "unknown_since", "calm_since", "flap_ended", "told_at"}


@dataclass(slots=True)
class Memory:
    """Everything a run leaves for the next one."""

    checks: dict[str, CheckState] = field(default_factory=dict)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    sent: list[Moment] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    remedies: dict[str, list[Moment]] = field(default_factory=dict)
    last_run: Moment | None = None
    trouble: str | None = None


class Busy(Exception):
    """Another run holds the lock."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__("another health run is at work")
        self.holder = holder

    @property
    def age(self) -> float:
        """Seconds since the holder began; 0 when that cannot be told, as for one that begins just now."""
        try:
            with contextlib.suppress(PermissionError):  # somebody else's, but alive
                os.kill(int(self.holder["pid"]), 0)
            elapsed = Moment.now().since(Moment.load(self.holder["moment"]))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError):
            # The last holder's note: the new one has the lock, and has not yet written its own.
            return 0.0
        return elapsed or 0.0


@contextlib.contextmanager
def run_lock(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the right to run, or raise Busy with what is known of the holder after `wait` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "health.lock", "a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    handle.seek(0)
                    raise Busy(_holder(handle.read())) from None
                time.sleep(0.05)
        handle.truncate(0)
        # Unbuffered: what a full disk does not take must not be tried again, and raise, at the end.
        with contextlib.suppress(OSError):
            holder = {"pid": os.getpid(), "started": round(time.time(), 1), "moment": Moment.now().dump()}
            os.write(handle.fileno(), json.dumps(holder).encode())
        yield


def _holder(text: str) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def load(path: Path) -> Memory:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Memory()
    try:
        return decode(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_suffix(f".broken-{int(time.time())}.json")
        os.replace(path, aside)
        return Memory(trouble=f"{path} could not be read ({error}); it was set aside as {aside.name}")


def save(path: Path, memory: Memory) -> None:
    write_atomically(path, json.dumps(encode(memory), separators=(",", ":")))


def write_atomically(path: Path, text: str, *, mode: int = 0o600, sync: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(text)
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def encode(memory: Memory) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "last_run": memory.last_run.dump() if memory.last_run else None,
        "checks": {name: _encode_check(state) for name, state in memory.checks.items()},
        "outbox": memory.outbox,
        "sent": [moment.dump() for moment in memory.sent],
        "held": memory.held,
        "remedies": {name: [at.dump() for at in moments] for name, moments in memory.remedies.items()},
    }


def decode(data: dict[str, Any]) -> Memory:
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']}, this version reads {SCHEMA}")
    return Memory(
        checks={name: _decode_check(state) for name, state in data["checks"].items()},
        outbox=list(data["outbox"]),
        sent=[Moment.load(moment) for moment in data["sent"]],
        held=list(data["held"]),
        remedies={name: [Moment.load(at) for at in moments] for name, moments in data["remedies"].items()},
        last_run=Moment.load(data["last_run"]) if data["last_run"] else None,
    )


def _encode_check(state: CheckState) -> dict[str, Any]:
    return {key: value for key, value in asdict(state).items() if value not in (None, (), "", {}, False)}


def _decode_check(data: dict[str, Any]) -> CheckState:
    values: dict[str, Any] = {}
    for spec in fields(CheckState):
        if spec.name not in data:
            continue
        value = data[spec.name]
        if spec.name in _MOMENTS:
            value = Moment.load(value)
        elif spec.name in ("hard", "seen", "told"):
            value = Status(value)
        elif spec.name == "history":
            value = tuple(Status(item) for item in value)
        elif spec.name == "hard_changes":
            value = tuple(Moment.load(item) for item in value)
        values[spec.name] = value
    return CheckState(**values)
