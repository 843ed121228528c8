"""The process that runs one tunnel, in front of a person or behind them.

In the background it starts as a child that still has the terminal, so that a passphrase or a second factor
can be asked for; once the tunnel is up it leaves the terminal and reports. A start that fails reports its
error instead, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from stackctl.errors import LockHeldError, StackctlError
from stackctl.tunnel import logfile, state
from stackctl.tunnel.auth import Ask
from stackctl.tunnel.forwarder import Forwarder, PortTaken
from stackctl.tunnel.ports import who_holds
from stackctl.tunnel.state import TunnelLock
from stackctl.tunnel.supervisor import Supervisor, TunnelSpec

log = logging.getLogger("stackctl.tunnel")
REPORT_EVERY = 2.0


class StartFailed(StackctlError):
    """A background start that ended before the tunnel was up; carries the child's own words and exit code."""

    def __init__(self, what: str, fix: str | None, exit_code: int) -> None:
        super().__init__(what, fix=fix)
        self.exit_code = exit_code


def run(spec: TunnelSpec, ask: Ask | None, ready: Callable[[dict[str, Any]], None]) -> None:
    """Run the tunnel until SIGTERM or SIGINT. `ready` is called once, when it is up for the first time."""
    lock = TunnelLock(spec.name)
    _raise_file_limit()
    # Threads do not survive the fork of a background start; so the forwarder is made here, in the child.
    try:
        forwarder = Forwarder(spec.forwards, hold=spec.hold)
    except PortTaken as error:
        lock.release()
        port = error.forward.local_port
        raise StackctlError(
            f"{error.what}: it is held by {who_holds(port)}", fix="choose another: add --free-ports"
        ) from None
    supervisor = Supervisor(spec, forwarder, ask)
    reporter = _Reporter(spec, supervisor, forwarder, ready)
    supervisor.on_change = reporter.write
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop_by_signal())
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.retry_now())
    forwarder.start()
    reporter.start()
    try:
        supervisor.run()
    finally:
        reporter.stop()
        forwarder.stop()
        reporter.write()
        lock.release()


def in_background(spec: TunnelSpec, ask: Ask | None) -> dict[str, Any]:
    """Start the tunnel in a process of its own and return its state once it is up."""
    if (pid := state.holder(spec.name)) is not None:
        raise LockHeldError(
            f"the tunnel '{spec.name}' is up already (pid {pid})",
            fix=f"stackctl tunnel status {spec.name}",
        )
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        os.close(reading)
        _child(spec, ask, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        report = json.loads(pipe.read() or "{}")
    if report.get("ok"):
        found = report["state"]
        assert isinstance(found, dict)
        return found
    what = report.get("what", "the tunnel's process ended without saying why")
    raise StartFailed(what, report.get("fix"), int(report.get("exit_code", 1)))


def _child(spec: TunnelSpec, ask: Ask | None, writing: int) -> None:
    """Never returns: the parent's stack below us is not ours to unwind."""
    code, told = 1, False

    def report(document: dict[str, Any]) -> None:
        """Once: the pipe's number may be another file's by the time the tunnel ends."""
        nonlocal told
        if not told:
            told = True
            with contextlib.suppress(BrokenPipeError):  # whoever started us has gone
                os.write(writing, json.dumps(document).encode())
            os.close(writing)

    def fail(what: str, fix: str | None, code: int) -> None:
        log.error("%s", what)
        report({"what": what, "fix": fix, "exit_code": code})

    try:
        _use(logfile.handler(spec.name))

        def ready(document: dict[str, Any]) -> None:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            report({"ok": True, "state": document})

        run(spec, ask, ready)
        code = 0
        report({"what": "the tunnel was taken down before it was up", "exit_code": 1})
    except StackctlError as error:
        code = error.exit_code
        fail(error.what, error.fix, code)
    except OSError as error:
        # Its network errors are told as errors of the tunnel; what is left is its own folder.
        log.exception("the tunnel ended")
        folder = state.folder(spec.name)
        fail(f"cannot run from {folder}: {(error.strerror or str(error)).lower()}", f"df -h {folder}", 1)
    except BaseException as error:
        log.exception("the tunnel ended")
        fail(f"unexpected {type(error).__name__}: {error}", None, 1)
    finally:
        os._exit(code)


def in_front(spec: TunnelSpec, ask: Ask | None, ready: Callable[[dict[str, Any]], None]) -> None:
    """Run the tunnel in this process, which logs to stderr, and to the file that `tunnel logs` shows."""
    file = logfile.handler(spec.name)
    _use(logging.StreamHandler(), file)
    try:
        run(spec, ask, ready)
    except StackctlError as error:
        # On stderr it is the last word of the program anyhow.
        file.handle(logging.LogRecord(log.name, logging.ERROR, __file__, 0, error.what, None, None))
        raise


def _use(*handlers: logging.Handler) -> None:
    logging.raiseExceptions = False  # a disk that is full must not speak in the middle of our own words
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers[:] = handlers
    log.setLevel(logging.INFO)
    log.propagate = False
    # paramiko logs a traceback for each connection that ends; our own lines say what it means.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def _raise_file_limit() -> None:
    """Each connection is a file; the default of 1024 would cap the tunnel below its own cap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < want:
        resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


class _Reporter:
    """Writes the state file at each change, and the counters every few seconds."""

    def __init__(
        self,
        spec: TunnelSpec,
        supervisor: Supervisor,
        forwarder: Forwarder,
        ready: Callable[[dict[str, Any]], None],
    ) -> None:
        self._spec, self._supervisor, self._forwarder = spec, supervisor, forwarder
        self._ready: Callable[[dict[str, Any]], None] | None = ready
        self._started = datetime.now(UTC)
        self._lock = threading.Lock()
        self._last: dict[str, Any] = {}
        self._unwritten = ""  # why the state could not be written, once that happened
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(REPORT_EVERY):
            self.write()

    def write(self) -> None:
        with self._lock:
            document = self._document()
            if document != self._last:
                self._save(document)
            up = document["state"] == "up" or self._spec.persist
            if up and self._ready is not None:
                ready, self._ready = self._ready, None
                ready(document)

    def _save(self, document: dict[str, Any]) -> None:
        """A full disk must not end the tunnel: what could not be written is tried again at the next tick."""
        try:
            state.write(self._spec.name, document)
        except OSError as error:
            if not self._unwritten:
                log.warning("cannot write the tunnel's state: %s", error.strerror)
            self._unwritten = f"its state could not be written for a while: {error.strerror}"
        else:
            self._last = document

    def _document(self) -> dict[str, Any]:
        progress, forwarder = self._supervisor.progress, self._forwarder
        return {
            "name": self._spec.name,
            "destination": str(self._spec.destination),
            "pid": os.getpid(),
            "started_at": _iso(self._started),
            "state": progress.state,
            "since": _iso(progress.since),
            "transport": progress.transport,
            "detail": progress.detail,
            "reconnects": progress.reconnects,
            "last_error": progress.last_error,
            "last_error_at": _iso(progress.last_error_at),
            "next_try_at": _iso(progress.next_try_at),
            "notes": [*progress.notes, *([self._unwritten] if self._unwritten else [])],
            "forwards": [
                {
                    "service": forward.service,
                    "local": f"{forward.local_host}:{forward.local_port}",
                    "local_host": forward.local_host,
                    "local_port": forward.local_port,
                    "remote": f"{forward.remote_host}:{forward.remote_port}",
                }
                for forward in forwarder.forwards
            ],
            "connections": {
                "open": forwarder.active,
                "total": forwarder.counters.connections,
                "refused": forwarder.counters.refused,
                "reset": forwarder.counters.reset,
            },
            "hold": self._spec.hold,
            "last_refusal": forwarder.last_refusal,
            "bytes": {"up": forwarder.bytes_up, "down": forwarder.bytes_down},
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
