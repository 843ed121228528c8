"""`llm-engine`, with every callback of its event loop measured.

    python measured_engine.py REPORT serve ...

What is measured is the processor time that the loop's own thread spent in one callback: on a busy machine the
wall clock would blame the callback for what other programs took. REPORT gets one JSON line for each callback
that took longer than `NOTED`, as it happens, with the functions that a look at its stack found it in.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from asyncio import events
from pathlib import Path

NOTED = 0.01
LOOK_AFTER = 0.03


class Watch:
    """Looks at the stack of a callback that runs long, from a thread beside the loop's."""

    def __init__(self) -> None:
        self.since = 0.0
        self.stack: list[str] = []
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
                    self.stack = found[-8:]


def measure(report: Path) -> None:
    run = events.Handle._run
    watch = Watch()
    report.write_text("")

    def measured(handle: events.Handle) -> None:
        if threading.get_ident() != watch.loop:
            run(handle)
            return
        watch.stack, watch.since = [], time.monotonic()
        before = time.thread_time()
        run(handle)
        spent = time.thread_time() - before
        watch.since = 0.0
        if spent > NOTED:
            with report.open("a") as file:
                file.write(json.dumps({"seconds": round(spent, 5), "stack": watch.stack}) + "\n")

    events.Handle._run = measured  # type: ignore[method-assign]


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules are named like Python's own
    from llm_engine.cli.main import main

    measure(Path(sys.argv[1]))
    sys.argv = ["llm-engine", *sys.argv[2:]]
    main()
