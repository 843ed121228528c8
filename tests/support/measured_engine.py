"""`llm-engine`, whose event loop is measured in two ways.

    python measured_engine.py REPORT serve ...

Every callback: the processor time that the loop's own thread spent in it. And a heartbeat of the loop: how
late it comes by the clock, which also shows what computes nothing: a file that is waited for, or another
thread that keeps the interpreter to itself. On a busy machine the clock would blame the loop for what other
programs took, so the time in which the kernel made this program's threads wait for a processor is taken off,
and so is what a process that does nothing but sleep was late in the same while: a machine that stands still
does so for all. REPORT gets one JSON line for each that took longer than `NOTED`, as it happens, with the
functions that a look at the stack found; REPORT.late, when that process was late. `slow` reads both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from asyncio import events
from pathlib import Path
from typing import Any

NOTED = 0.01
BEAT = 0.02
LOOK_AFTER = 0.03


class Watch:
    """Looks at the stack of a callback that runs long, from a thread beside the loop's."""

    def __init__(self) -> None:
        self.since = 0.0
        self.stack: list[str] = []
        self.seen: list[str] = []
        """The last stack of a callback that ran long."""
        self.loop = threading.get_ident()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_AFTER / 2)
            since = self.since
            if since and not self.stack and time.monotonic() - since > LOOK_AFTER:
                frame = sys._current_frames().get(self.loop)
                found = [f"{entry.name}:{entry.lineno}" for entry in traceback.extract_stack(frame)]
                if self.since == since:
                    self.stack = self.seen = found[-8:]


class Heart:
    """Beats on the loop, and says how late."""

    def __init__(self, report: Path, watch: Watch) -> None:
        self.report = report
        self.watch = watch
        self.due = 0.0
        self.waits: dict[str, int] = {}

    def start(self) -> None:
        self.waits = _waits()
        self._next()

    def _next(self) -> None:
        self.due = time.monotonic() + BEAT
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        late = now - self.due
        waits = _waits()
        waited = sum(value - self.waits.get(thread, 0) for thread, value in waits.items()) / 1e9
        self.waits = waits
        if late - waited > NOTED:
            _write(self.report, late - waited, self.watch.seen, [self.due, now])
        self.watch.seen = []
        self._next()


def _waits() -> dict[str, int]:
    """For each thread, how long it was ready to run and had no processor, in nanoseconds."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found


def _write(report: Path, seconds: float, stack: list[str], when: list[float] | None = None) -> None:
    with report.open("a") as file:
        file.write(json.dumps({"seconds": round(seconds, 5), "stack": stack, "when": when}) + "\n")


METRONOME = """
import os, sys, time
parent = os.getppid()
while os.getppid() == parent:
    due = time.monotonic() + 0.005
    time.sleep(0.005)
    now = time.monotonic()
    if now > due + 0.002:
        with open(sys.argv[1], "a") as file:
            file.write(f"{due} {now}\\n")
"""


def slow(report: Path, most: float) -> list[Any]:
    """What took longer than `most` seconds and was not the machine's doing."""
    late = report.with_suffix(".late")
    stalls = [[float(word) for word in line.split()] for line in late.read_text().splitlines()]
    found = []
    for entry in map(json.loads, report.read_text().splitlines()):
        if entry["when"] is not None:
            begin, end = entry["when"]
            entry["seconds"] -= sum(max(0.0, min(end, to) - max(begin, since)) for since, to in stalls)
        if entry["seconds"] > most:
            found.append(entry)
    return found


def measure(report: Path) -> None:
    run = events.Handle._run
    watch = Watch()
    heart = Heart(report, watch)
    for path in (report, report.with_suffix(".late")):
        path.write_text("")
    subprocess.Popen([sys.executable, "-S", "-c", METRONOME, os.fspath(report.with_suffix(".late"))])

    def measured(handle: events.Handle) -> None:
        if threading.get_ident() != watch.loop:
            run(handle)
            return
        if not heart.waits:
            heart.start()
        watch.stack, watch.since = [], time.monotonic()
        before = time.thread_time()
        run(handle)
        spent = time.thread_time() - before
        watch.since = 0.0
        if spent > NOTED:
            _write(report, spent, watch.stack)

    events.Handle._run = measured  # type: ignore[method-assign]


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules are named like Python's own
    from llm_engine.cli.main import main

    measure(Path(sys.argv[1]))
    sys.argv = ["llm-engine", *sys.argv[2:]]
    main()
