"""The memory of a run: one JSON object per line, synced to the disk at every transition.

A line is on the disk before the thing it announces happens, so after `kill -9` or a power cut the journal
says which step was under way. A torn last line is what such a cut leaves behind; it is ignored. Secrets are
taken out before a line is made, of every text that is not one of ours.

A run that cannot be written down goes no further, and goes back unwritten: see `Journal.must_end`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import durable
from stackctl.errors import PreflightError, StackctlError
from stackctl.procedures import ballast
from stackctl.redact import redacted_values
from stackctl.runtime.local import usage

FILE = "journal.jsonl"
SCHEMA = 1
# Written by this program alone, and read again by it.
OURS = (
    "run", "procedure", "version", "sha256", "salt", "inputs_fingerprint", "pid", "pid_started", "boot",
    "in_force", "step", "phase", "ok", "duration", "changed", "exit", "result", "exit_code", "inputs", "data",
)  # fmt: skip

BEGINNING = (
    "procedure", "version", "sha256", "salt", "inputs", "inputs_fingerprint", "pid", "pid_started", "boot",
    "in_force",
)  # fmt: skip


class JournalLost(StackctlError):
    """A line of the journal could not be written, so nothing more may be done."""


class Journal:
    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.path = run_dir / FILE
        self.lost: OSError | None = None
        self._must_end = False
        run_dir.mkdir(parents=True, exist_ok=True)
        os.chmod(run_dir, 0o700)
        ballast.keep(run_dir.parent)
        fresh = not self.path.exists()
        try:
            self._descriptor = ballast.written(run_dir.parent, lambda: _opened(self.path))
        except OSError as error:
            raise _no_run(run_dir.parent, error) from error
        if fresh:
            # A power cut must not take the file's name away while its lines are safe.
            durable.sync([run_dir, run_dir.parent])

    def begin(self, event: str, **fields: Any) -> None:
        """The line before which nothing was done: without it nothing is."""
        try:
            ballast.written(self.run_dir.parent, lambda: self._write(_line(event, fields)))
        except OSError as error:
            if not self._must_end:
                raise _no_run(self.run_dir.parent, error) from error
            self.lost = error

    def append(self, event: str, **fields: Any) -> None:
        """Raises JournalLost when the line is not on the disk, and from then on, until the run must end."""
        try:
            if self.lost is None or self._must_end:
                self._write(_line(event, fields))
        except OSError as error:
            self.lost = error
            if ballast.give_up(self.run_dir.parent) and self._must_end:
                self.append(event, **fields)
        if self.lost is not None and not self._must_end:
            what = f"the journal of this run cannot be written: {self.lost.strerror}: {self.path}"
            raise JournalLost(what, fix=f"df -h {self.run_dir}") from self.lost

    def must_end(self) -> None:
        """From here on a line that cannot be written is left out: that may not keep a run from its end."""
        self._must_end = True

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        """All of it, or nothing."""
        size = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise


def _line(event: str, fields: Mapping[str, Any]) -> bytes:
    shown = {name: value if name in OURS else redacted_values(value) for name, value in fields.items()}
    record = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **shown}
    return json.dumps(record, default=str, ensure_ascii=False).encode() + b"\n"


def _no_run(runs: Path, error: OSError) -> PreflightError:
    return PreflightError(
        f"no run can begin: {runs} cannot be written: {error.strerror}", fix=f"df -h {runs}"
    )


def _opened(path: Path) -> int:
    """A power cut can leave half a line; the next record must not be glued to it."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def new_run_dir(runs: Path, procedure: str, text: str) -> Path:
    """A folder of its own for a run of that page, with the page as it is now."""
    try:
        return ballast.written(runs, lambda: _new_run_dir(runs, procedure, text))
    except OSError as error:
        raise _no_run(runs, error) from error


def _new_run_dir(runs: Path, procedure: str, text: str) -> Path:
    while True:
        now = datetime.now(UTC)
        stamp = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z"
        path = runs / f"{stamp}-{procedure}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        try:
            (path / "procedure.md").write_text(text, encoding="utf-8")
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return path


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def read(run_dir: Path) -> list[dict[str, Any]]:
    return list(_records(run_dir / FILE))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


@dataclass
class StepRecord:
    id: str
    state: str = "pending"
    title: str = ""
    detail: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    duration: float = 0.0
    changed: bool = False
    answer: str | None = None


@dataclass
class RunRecord:
    """What a journal says, folded into the present state of its run."""

    run_dir: Path
    procedure: str = ""
    version: int = 0
    sha256: str = ""
    salt: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    inputs_fingerprint: str = ""
    started: str = ""
    finished: str = ""
    result: str = "unfinished"
    exit_code: int | None = None
    undoing: bool = False
    pid: int = 0
    pid_started: int | None = None
    boot: str = ""
    in_force: int | None = None
    touched: str = ""
    error: str = ""
    cause: str = ""
    steps: dict[str, StepRecord] = field(default_factory=dict)
    left_by_hand: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.run_dir.name

    @property
    def resumable(self) -> bool:
        return self.result in ("unfinished", "interrupted", "stopped", "undo-failed")

    @property
    def alive(self) -> bool:
        """Whether the process that runs it still exists, on this boot; another may have its number now."""
        if self.result != "unfinished" or self.boot != boot_id():
            return False
        started = usage.start_time(self.pid)
        return started is not None and self.pid_started in (None, started)


def fold(run_dir: Path) -> RunRecord:
    record = RunRecord(run_dir)
    for line in read(run_dir):
        _apply(record, line)
    return record


def _apply(record: RunRecord, line: Mapping[str, Any]) -> None:
    event = line.get("event", "")
    record.touched = line.get("at", record.touched)
    if event in ("run.started", "run.resumed"):
        for name in BEGINNING:
            if name in line:
                setattr(record, name, line[name])
        record.started = record.started or line["at"]
        record.result, record.exit_code, record.finished = "unfinished", None, ""
    elif event == "run.undoing":
        record.undoing = True
        record.error = record.cause = line.get("error", "")
    elif event == "run.finished":
        record.result, record.exit_code, record.finished = line["result"], line["exit_code"], line["at"]
        record.error = line.get("error") or record.error
        record.left_by_hand = list(line.get("left_by_hand", []))
    elif event.startswith("step."):
        step = record.steps.setdefault(line["step"], StepRecord(line["step"]))
        step.state = event.removeprefix("step.")
        step.title = line.get("title", step.title)
        step.detail = line.get("detail", step.detail)
        step.data = dict(line.get("data", step.data))
        step.duration = line.get("duration", step.duration)
        step.changed = line.get("changed", step.changed)
        step.answer = line.get("answer", step.answer)


def history(runs: Path, procedure: str | None = None) -> list[RunRecord]:
    """Every run (of one procedure), oldest first."""
    return [fold(path) for path in _folders(runs, procedure)]


def newest(runs: Path, procedure: str) -> RunRecord | None:
    """The only run of a procedure that can be gone on with; a later one has taken its place otherwise."""
    found = _folders(runs, procedure)
    return fold(found[-1]) if found else None


def _folders(runs: Path, procedure: str | None = None) -> list[Path]:
    if not runs.is_dir():
        return []
    ours = re.compile(rf"\d{{8}}T\d{{6,9}}Z-{re.escape(procedure) if procedure else '.+'}-[0-9a-f]{{4}}")
    return sorted(path for path in runs.iterdir() if ours.fullmatch(path.name) and (path / FILE).exists())


def prune(runs: Path, keep: int = 200) -> None:
    """Forget the oldest runs; the newest of each procedure stays, because it may be gone on with."""
    found = _folders(runs)
    spared = {procedure_of(path): path for path in found}
    for path in found[: -keep or None]:
        if spared[procedure_of(path)] != path:
            shutil.rmtree(path, ignore_errors=True)


def procedure_of(run_dir: Path) -> str:
    """A run folder is called TIME-PROCEDURE-RANDOM."""
    return run_dir.name.split("-", 1)[1].rsplit("-", 1)[0]
