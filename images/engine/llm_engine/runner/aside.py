"""Threads beside the reading one, for requests that take long to prepare: media, long texts, large grammars.

While one is prepared, the next requests are read, and what is being written goes on. Guarantees: jobs of one
`Aside` are done in order of arrival; one that fails ends its own request alone; a request that was cancelled
before it was ready never reaches the computing thread, and what was made for it is dropped at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Work = Callable[[], None]
Job = Callable[[], Work | None]


class Aside:
    """One such thread. What a job returns is put into the inbox of the computing thread by `give`."""

    def __init__(
        self, name: str, give: Callable[[Work], None], fail: Callable[[int, Exception], None]
    ) -> None:
        self._give = give
        self._fail = fail
        self._jobs: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        self._wanted: set[int] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, request_id: int, job: Job) -> None:
        self._wanted.add(request_id)
        self._jobs.put((request_id, job))

    def cancel(self, request_id: int) -> None:
        """From now on nothing of this request is given on; what was given before, the caller ends."""
        with self._lock:
            self._wanted.discard(request_id)

    def _run(self) -> None:
        while True:
            self._do(*self._jobs.get())

    def _do(self, request_id: int, job: Job) -> None:
        """In a call of its own, so that nothing of a request is kept until the next one comes."""
        if request_id not in self._wanted:
            return
        try:
            work = job()
        except Exception as error:  # noqa: BLE001 - told to whoever asked; the next job is taken up
            self._fail(request_id, error)
            work = None
        with self._lock:
            if request_id in self._wanted and work is not None:
                self._give(work)
            self._wanted.discard(request_id)
