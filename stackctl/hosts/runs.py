"""The near side of `stackctl --host`: run a command over there, follow it, and stay with it through lost
connections.

The exit code and both streams are the far command's own. When the connection breaks the run goes on over
there; this side reconnects and goes on reading at the byte where it was. Ctrl-C is passed on; a second one
lets go of the run and says how to come back to it.
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from stackctl.errors import StackctlError
from stackctl.hosts import remote
from stackctl.hosts.noise import Tail, after_noise
from stackctl.hosts.sessions import BEHIND, MARK, left_out
from stackctl.tunnel.errors import PermanentTunnelError, TunnelError
from stackctl.tunnel.hosts import Host

#: They hold a conversation, read standard input or never end: run directly, gone with the connection.
DIRECT = frozenset({"logs", "top", "watch", "exec", "secrets"})
#: Commands that concern this machine; on another one they would be a mistake.
LOCAL_ONLY = frozenset({"tunnel", "host", "hosts", "completion"})
GIVE_UP_AFTER = 600.0
END_WAIT = 2.0
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
        self.asked = dict(self.seen)  # of this connection
        self._skipped: dict[str, int] = {}  # by the far side, on this connection
        self.again = f"stackctl --host {host.name} run --attach {session}"
        self._interrupted = False
        self._through = False  # this connection has reached the far stackctl
        self._begun = False  # some connection has: the run is, or was, over there
        self._delay, self._last_news = 0.5, time.monotonic()

    def follow(self) -> int:
        while True:
            try:
                code, trouble = self._once()
                if code is not None:
                    return code
                self._wait(trouble)
            except KeyboardInterrupt:
                self._pass_on()
            except BrokenPipeError:
                with contextlib.suppress(OSError):
                    print(f"nobody reads on; if the run has not ended: {self.again}", file=sys.stderr)
                raise
            except OSError as error:
                raise StackctlError(
                    f"cannot write what the run says: {(error.strerror or str(error)).lower()}; "
                    "if it has not ended, it goes on over there",
                    fix=self.again,
                ) from None

    def _wait(self, trouble: str) -> None:
        """Before the next connection; raises when there is no point in one."""
        if self._through or _lost(trouble):
            self._begun = True
            self._delay, self._last_news = 0.5, time.monotonic()
        error = remote.explain(self.host, trouble)
        if not self._begun:
            raise error
        if isinstance(error, PermanentTunnelError):
            print(f"the run goes on over there: {self.again}", file=sys.stderr)
            raise error
        if time.monotonic() - self._last_news > GIVE_UP_AFTER:
            raise TunnelError(
                f"{self.host.name} has not been reachable for {GIVE_UP_AFTER / 60:.0f} minutes; "
                "the run goes on over there",
                fix=self.again,
            )
        print(f"connection to {self.host.name} lost, reconnecting (or later: {self.again})", file=sys.stderr)
        time.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(self._delay * 2, 15.0)

    def _once(self) -> tuple[int | None, str]:
        """One connection: (exit code, "") when the run ended, (None, ssh's words) when the connection did."""
        words = [*self.words]
        at = words.index("--") if "--" in words else len(words)
        self.asked = dict(self.seen)
        words[at:at] = ["--out", str(self.asked["out"]), "--err", str(self.asked["err"]), "--mark"]
        self._through = False
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
        if code == BEHIND:
            return self._once()  # it says from where it goes on
        return code, ""

    def _follow_child(self, line: list[str]) -> tuple[int, str]:
        """Copy what ssh brings; its exit code, and a last line that was ssh's own.

        Raises what kept the output from being written here.
        """
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None and child.stderr is not None
        tail = Tail(sys.stderr.buffer)
        unwritten: list[OSError] = []

        def copy(name: str, source: BinaryIO, target: BinaryIO | Tail) -> None:
            try:
                self._copy(name, source, target)
            except OSError as error:  # a full disk, a pipe that nobody reads
                unwritten.append(error)
                _end(child)  # or it would wait for us to read on

        threads = [
            threading.Thread(target=copy, args=("out", child.stdout, sys.stdout.buffer), daemon=True),
            threading.Thread(target=copy, args=("err", child.stderr, tail), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            code = child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            for thread in threads:
                thread.join()
            child.stdout.close()
            child.stderr.close()
            for name, size in self._skipped.items():
                self.seen[name] += size
            self._skipped = {}
            if tail.marked:
                # Perhaps ssh's own, perhaps the run's; not counted, it comes again in the second case.
                self.seen["err"] -= len(tail.kept)
        if unwritten:
            raise unwritten[0]
        if code != remote.SSH_FAILED:
            tail.finish()
        return code, tail.kept.decode(errors="replace")

    def _copy(self, name: str, source: BinaryIO, target: BinaryIO | Tail) -> None:
        first = after_noise(source, target) if isinstance(target, Tail) else self._greeted(source)
        self.seen[name] += len(first)
        target.write(first)
        target.flush()
        while data := source.read1(65536):  # type: ignore[attr-defined]
            self.seen[name] += len(data)
            target.write(data)
            target.flush()

    def _greeted(self, source: BinaryIO) -> bytes:
        """Wait for the mark and the places; what came in one read with them.

        Before the mark is what a login script prints: not the run's, and not in its count.
        """
        kept = b""
        while data := bytes(source.read1(65536)):  # type: ignore[attr-defined]
            _, mark, after = (kept + data).partition(MARK)
            line, end, rest = after.partition(b"\n")
            if end:
                self._through = True
                self._go_on_at(line)
                return rest
            kept = mark + after if mark else b""
        return b""

    def _go_on_at(self, line: bytes) -> None:
        """The far side keeps the newest part of what a run says; we may have been away for longer."""
        for name, place in zip(("out", "err"), map(int, line.split()), strict=True):
            if place > self.asked[name]:
                sys.stderr.buffer.write(left_out(place - self.asked[name], name))
                sys.stderr.buffer.flush()
                self._skipped[name] = place - self.asked[name]

    def _pass_on(self) -> None:
        """Ctrl-C: once to the run, twice to let go of it.

        A run that has not begun is kept from beginning; from here on it is only followed, never started.
        """
        if self._interrupted:
            self._let_go()
        self._interrupted = True
        print("interrupting the run; once more lets go of it", file=sys.stderr)
        words = [*remote.program(self.host), "session", "interrupt", "--ahead", self.session]
        try:
            answer = remote.ask(self.host, words, timeout=20)
            trouble = answer.err.strip() or f"exit {answer.code}" if answer.code else ""
        except KeyboardInterrupt:
            self._let_go()
        except TunnelError as error:
            trouble = error.what
        if trouble:
            print(f"the run could not be interrupted: {trouble.splitlines()[0]}", file=sys.stderr)
            self._let_go()
        self.words = ["session", "attach", self.session]

    def _let_go(self) -> NoReturn:
        print(f"let go of the run; if it has begun, it goes on over there: {self.again}", file=sys.stderr)
        raise KeyboardInterrupt


def _end(child: subprocess.Popen[bytes]) -> None:
    """ssh may sleep on a connection and not see that it was asked to end."""
    child.terminate()
    try:
        child.wait(END_WAIT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _lost(said: str) -> bool:
    """A connection that had been made, as opposed to one that could not be."""
    return bool(
        re.search(r"client_loop|Timeout, server|Connection to \S+ closed|Read from remote host", said)
    )
