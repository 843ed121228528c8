"""The near side of `stackctl --host`: run a command over there, follow it, and stay with it through lost
connections.

The exit code and both streams are the far command's own. When the connection breaks the run goes on over
there; this side reconnects and goes on reading at the byte where it was. Ctrl-C is passed on; a second one
lets go of the run and says how to come back to it.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from stackctl.errors import StackctlError
from stackctl.hosts import remote
from stackctl.tunnel.errors import PermanentTunnelError, TunnelError
from stackctl.tunnel.hosts import Host

#: Commands that hold a conversation or never end: run directly, gone with the connection.
DIRECT = frozenset({"logs", "top", "exec"})
#: Commands that concern this machine; on another one they would be a mistake.
LOCAL_ONLY = frozenset({"tunnel", "host", "hosts", "completion"})
GIVE_UP_AFTER = 600.0
NOT_FOUND = 127


def direct(host: Host, words: Sequence[str]) -> int:
    """With this terminal, if there is one; no more than `ssh -t`."""
    line = remote.argv(host, [*remote.program(host), *words], batch=False)
    if sys.stdin.isatty() and sys.stdout.isatty():
        line[line.index("RequestTTY=no")] = "RequestTTY=force"
    code = subprocess.call(line)
    if code == remote.SSH_FAILED:
        raise TunnelError(
            f"the connection to {host.name} failed or broke", fix=f"ssh {host.destination.words}"
        )
    return code


def run(host: Host, words: Sequence[str]) -> int:
    """Start the command on the host and follow it to its end."""
    session = uuid.uuid4().hex[:12]
    return _Follower(host, session, ["session", "run", session, "--", *words]).follow()


def attach(host: Host, session: str | None) -> int:
    """Come back to a run; without an id, to the one that runs now or was the last."""
    if session is None:
        answer = remote.ask(host, [*remote.program(host), "session", "latest"], timeout=20)
        if answer.code == NOT_FOUND:
            raise _nothing_there(host)
        if answer.code:
            said = answer.err.strip().splitlines() or ["no session to attach to"]
            raise StackctlError(f"{host.name}: {said[0].removeprefix('error: ')}")
        session = answer.out.strip()
        print(f"attaching to {session}", file=sys.stderr)
    return _Follower(host, session, ["session", "attach", session]).follow()


def _nothing_there(host: Host) -> StackctlError:
    return StackctlError(f"there is no stackctl on {host.name}", fix=f"stackctl host bootstrap {host.name}")


class _Follower:
    def __init__(self, host: Host, session: str, words: list[str]) -> None:
        self.host, self.session, self.words = host, session, words
        self.seen = {"out": 0, "err": 0}
        self._interrupted = False

    def follow(self) -> int:
        delay, last_news = 0.5, time.monotonic()
        while True:
            before = dict(self.seen)
            try:
                code, trouble = self._once()
            except KeyboardInterrupt:
                self._pass_on()
                continue
            if code is not None:
                return code
            if self.seen != before:
                delay, last_news = 0.5, time.monotonic()
            error = remote.explain(self.host, trouble)
            first = not any(self.seen.values())
            if isinstance(error, PermanentTunnelError) or (first and not _lost(trouble)):
                raise error
            if time.monotonic() - last_news > GIVE_UP_AFTER:
                raise TunnelError(
                    f"{self.host.name} has not been reachable for {GIVE_UP_AFTER / 60:.0f} minutes; "
                    "the run goes on over there",
                    fix=f"stackctl --host {self.host.name} run --attach {self.session}",
                )
            print(f"connection to {self.host.name} lost, reconnecting", file=sys.stderr)
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, 15.0)

    def _once(self) -> tuple[int | None, str]:
        """One connection: (exit code, "") when the run ended, (None, ssh's words) when the connection did."""
        words = [*self.words]
        at = words.index("--") if "--" in words else len(words)
        words[at:at] = ["--out", str(self.seen["out"]), "--err", str(self.seen["err"])]
        with tempfile.NamedTemporaryFile(prefix="stackctl-ssh-") as log:
            line = remote.argv(
                self.host, [*remote.program(self.host), *words], batch=False, log=Path(log.name)
            )
            code, last = self._follow_child(line)
            trouble = Path(log.name).read_text(errors="replace")
        if code == remote.SSH_FAILED:
            return None, trouble + last
        if code == NOT_FOUND:
            raise _nothing_there(self.host)
        return code, ""

    def _follow_child(self, line: list[str]) -> tuple[int, str]:
        """Copy what ssh brings; its exit code, and a last line that was ssh's own."""
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None and child.stderr is not None
        tail = _Tail(sys.stderr.buffer)
        threads = [
            threading.Thread(target=self._copy, args=("out", child.stdout, sys.stdout.buffer), daemon=True),
            threading.Thread(target=self._copy, args=("err", child.stderr, tail), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
        finally:
            for thread in threads:
                thread.join()
            child.stdout.close()
            child.stderr.close()
            # Not part of the run: it does not count towards where we are in its output.
            self.seen["err"] -= len(tail.kept)
        return code, tail.kept.decode(errors="replace")

    def _copy(self, name: str, source: BinaryIO, target: BinaryIO | _Tail) -> None:
        while data := source.read1(65536):  # type: ignore[attr-defined]
            self.seen[name] += len(data)
            target.write(data)
            target.flush()

    def _pass_on(self) -> None:
        """Ctrl-C: once to the run, twice to let go of it."""
        again = f"stackctl --host {self.host.name} run --attach {self.session}"
        if self._interrupted:
            print(f"let go of the run; it goes on over there: {again}", file=sys.stderr)
            raise KeyboardInterrupt
        self._interrupted = True
        print("interrupting the run; once more lets go of it", file=sys.stderr)
        remote.ask(self.host, [*remote.program(self.host), "session", "interrupt", self.session], timeout=20)


class _Tail:
    """Passes on all but a last line that ends in CR LF: that is how ssh itself says good-bye."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.kept = b""

    def write(self, data: bytes) -> None:
        data = self.kept + data
        self.kept = b""
        if data.endswith(b"\r\n"):
            at = data.rfind(b"\n", 0, -2) + 1
            data, self.kept = data[:at], data[at:]
        self.target.write(data)

    def flush(self) -> None:
        self.target.flush()


def _lost(said: str) -> bool:
    """A connection that had been made, as opposed to one that could not be."""
    words = ("client_loop", "Connection to", "closed by remote host", "Timeout, server", "Connection reset")
    return any(word in said for word in words)
