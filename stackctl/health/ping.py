"""Tells a healthchecks-style service that a run began and how it ended, so that silence raises an alarm
there.

- start and end carry one run id, so the service can pair them;
- a ping runs in its own thread with a time limit and one retry inside it: it never delays a check, never
  fails a run;
- what a check found is not sent unless asked for, and cut to what the service announces it keeps.
"""

from __future__ import annotations

import threading
import time
import uuid

from stackctl.health.http import HttpError, Reply, request
from stackctl.health.model import Status
from stackctl.health.plan import Ping

_DEFAULT_LIMIT = 10_000


class Pinger:
    """The pings of one run. `finish` waits at most the configured time; everything else returns at once."""

    def __init__(self, config: Ping) -> None:
        self._config = config
        self._run = str(uuid.uuid4())
        self._limit = _DEFAULT_LIMIT
        self._thread: threading.Thread | None = None
        self.problem: str | None = None

    def start(self) -> None:
        if self._config.start:
            deadline = time.monotonic() + self._config.timeout
            self._thread = threading.Thread(target=self._send, args=("/start", b"", deadline), daemon=True)
            self._thread.start()

    def finish(self, status: Status, line: str) -> None:
        deadline = time.monotonic() + self._config.timeout
        if self._thread is not None:
            # An end that overtakes its start would leave the service waiting for another end.
            self._thread.join(max(0.0, deadline - time.monotonic()))
        body = line.encode() if self._config.send_output else b""
        last = threading.Thread(target=self._send, args=(self._path(status), body, deadline), daemon=True)
        last.start()
        last.join(max(0.0, deadline - time.monotonic()) + 0.1)
        if last.is_alive():
            self.problem = f"no answer within {self._config.timeout:g} s"

    def _path(self, status: Status) -> str:
        if self._config.exit_code:
            return f"/{int(status)}"
        # A WARNING is not an outage, and a run that could not look must not be taken for a healthy one.
        return "" if status in (Status.OK, Status.WARNING) else "/fail"

    def _send(self, path: str, body: bytes, deadline: float) -> None:
        base, _, query = self._config.url.partition("?")
        url = f"{base.rstrip('/')}{path}?rid={self._run}" + (f"&{query}" if query else "")
        for _ in range(2):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                self._note(request("POST", url, timeout=left, body=body[: self._limit]))
                return
            except HttpError as error:
                self.problem = str(error)
                time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
            except Exception as error:  # noqa: BLE001 - a thread that dies would say so in cron's mail
                self.problem = f"{type(error).__name__}: {error}"
                return

    def _note(self, reply: Reply) -> None:
        announced = reply.headers.get("ping-body-limit", "")
        if announced.isdigit():
            self._limit = int(announced)
        if reply.status >= 400:
            self.problem = f"the ping was answered {reply.status}: {reply.text[:80]}"
        elif reply.text.strip().lower() in ("ok", "created", ""):
            self.problem = None
        else:
            # A 200 can still say "OK (not found)" or "OK (rate limited)".
            self.problem = f"the ping was answered: {reply.text.strip()[:80]}"
