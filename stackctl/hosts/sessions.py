"""A command that outlives the connection it was started over: run apart, its output kept, attached to
again.

The far side of `stackctl --host`. Each run has a folder with what it was asked, what it has said so far on
each stream, and how it ended. Attaching is reading those files from where the reader had got to, so a
dropped connection costs nothing and two readers may watch one run. Of each stream the newest part is kept
(output.py), and of all runs the newest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from stackctl.errors import StackctlError, UsageError
from stackctl.hosts import output
from stackctl.paths import state_root

KEEP = 50
#: All that ended runs may have said.
KEEP_BYTES = 256 << 20
#: Comes before all output on each stream, if asked for: the reader got through. What the server and a login
#: script say comes before it, and after it a line of stdout says from which places the two streams go on.
MARK = b"\0"
#: A reader that asked for the mark fell behind what is kept; it has to come again. No run ends with this.
BEHIND = 75
POLL = 0.05
_ID = re.compile(r"[a-z0-9-]{6,40}")


@dataclass(frozen=True)
class Session:
    id: str
    argv: tuple[str, ...]
    started_at: str
    running: bool
    exit_code: int | None  # None while it runs, or when it was killed


def root() -> Path:
    return state_root() / "sessions"


def _folder(session_id: str) -> Path:
    if not _ID.fullmatch(session_id):
        raise UsageError(f"'{session_id}' is not the id of a session", fix="stackctl session list")
    return root() / session_id


def _no_such(session_id: str) -> StackctlError:
    return StackctlError(f"there is no session '{session_id}' on this host", fix="stackctl session list")


def start(session_id: str, argv: Sequence[str]) -> None:
    """Begin the run, unless one of this id has begun already: starting twice is attaching."""
    folder = _folder(session_id)
    try:
        lock = _place(folder, argv)
    except OSError as error:
        raise StackctlError(
            f"this host cannot keep what the run says in {root()}: {(error.strerror or str(error)).lower()}",
            fix=f"df -h {root()}",
        ) from None
    if lock is None:
        return
    _prune()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    first = os.fork()
    if first == 0:
        _detached(folder, list(argv), writing)
    os.close(writing)
    os.close(lock)  # the run has it, and has had it since before anyone could see the folder
    os.waitpid(first, 0)
    with os.fdopen(reading) as pipe:
        pipe.read(1)  # the run has begun, and its pid is written down


def _place(folder: Path, argv: Sequence[str], ended: int | None = None, err: str = "") -> int | None:
    """Put a complete folder in its place, locked; None when one is there already.

    It is made aside and renamed: nobody ever sees a half-made one, nor one that looks as if its run had died.
    """
    root().mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_dir():
        return None
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=root()))
    lock = os.open(made / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (made / "out").touch(mode=0o600)
        (made / "err").write_text(err)
        meta = {"argv": list(argv), "started_at": datetime.now(UTC).isoformat(timespec="seconds")}
        (made / "meta.json").write_text(json.dumps(meta))
        if ended is not None:
            (made / "exit").write_text(str(ended))
        made.rename(folder)
    except OSError as error:
        os.close(lock)
        shutil.rmtree(made, ignore_errors=True)
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return None
    return lock


def _detached(folder: Path, argv: list[str], ready: int) -> None:
    """In the child, never returns: leave the session and the connection, run, write down how it ended."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        # Death of the connection must not reach the run: no terminal, no inherited pipes.
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        with open(folder / "out", "ab") as out, open(folder / "err", "ab") as err:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            _write(folder / "pid", str(child.pid))
            if _claimed(folder):
                child.send_signal(signal.SIGINT)
            os.write(ready, b".")
            os.close(ready)
            output.keep_short([folder / "out", folder / "err"])
            code = child.wait()
        output.trim(folder / "out")
        output.trim(folder / "err")
        _write(folder / "exit", str(code if code >= 0 else 128 - code))
    except BaseException as error:  # noqa: BLE001 - there is nobody above to raise to
        with contextlib.suppress(OSError):
            (folder / "err").write_text(f"error: cannot run {argv[0]}: {error}\n")
            _write(folder / "exit", "1")
    finally:
        os._exit(0)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def places(session_id: str, out_from: int, err_from: int) -> tuple[int, int]:
    """From where the streams can be read: the given places, or the first that are kept."""
    folder = _folder(session_id)
    out, err = output.first_place(folder / "out"), output.first_place(folder / "err")
    return max(out_from, out), max(err_from, err)


def attach(
    session_id: str, out: BinaryIO, err: BinaryIO, *, out_from: int = 0, err_from: int = 0, skip: bool = True
) -> int:
    """Copy what the run says, from the given places, until it ends; its exit code.

    What is no longer kept is left out with a word about it, or ends this with BEHIND when not to be skipped.
    """
    folder = _folder(session_id)
    if not folder.is_dir():
        raise _no_such(session_id)
    said, complained = output.Reader(folder / "out", out_from), output.Reader(folder / "err", err_from)
    try:
        while True:
            ended = not _running(folder)  # asked before the last read: nothing is missed
            try:
                moved = complained.copy(err) + said.copy(out)
            except output.Behind:
                if not skip:
                    return BEHIND
                for reader, name in ((complained, "err"), (said, "out")):
                    first = output.first_place(folder / name)
                    if first > reader.place:
                        err.write(left_out(first - reader.place, name))
                        reader.place = first
                continue
            if ended:
                break
            if not moved:
                time.sleep(POLL)
    finally:
        said.close()
        complained.close()
    code = _exit_code(folder)
    if code is None:
        raise StackctlError(
            f"the run '{session_id}' was killed before it could end", fix="stackctl status, then run it again"
        )
    return code


def left_out(size: int, stream: str) -> bytes:
    return f"note: {size} bytes of earlier std{stream} are no longer kept\n".encode()


def interrupt(session_id: str, *, ahead: bool = False) -> None:
    """As Ctrl-C would, where the run is. With `ahead`, one that has not begun never will."""
    folder = _folder(session_id)
    if not folder.is_dir():
        if not ahead:
            raise _no_such(session_id)
        # In the place of the run: its start, when it arrives late, finds that it has ended.
        lock = _place(folder, [], ended=130, err="interrupted before it began\n")
        if lock is not None:
            os.close(lock)
            return
    (folder / "interrupted").touch(mode=0o600)
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text())
        if _claimed(folder) and _running(folder):
            os.kill(pid, signal.SIGINT)


def _claimed(folder: Path) -> bool:
    """Whether there is an interrupt to deliver; it is told once, to the run that begins or to who asks."""
    try:
        (folder / "interrupted").unlink()
    except FileNotFoundError:
        return False
    return True


def latest() -> str:
    known = [each for each in sessions() if each.argv]
    if not known:
        raise StackctlError("no command was ever run on this host with --host")
    running = [each for each in known if each.running]
    return (running or known)[-1].id


def sessions() -> list[Session]:
    found = []
    for folder in root().iterdir() if root().is_dir() else ():
        if folder.name.startswith("."):
            continue  # being made
        try:
            meta = json.loads((folder / "meta.json").read_text())
            argv = tuple(str(word) for word in meta["argv"])
            found.append(
                Session(folder.name, argv, str(meta["started_at"]), _running(folder), _exit_code(folder))
            )
        except (OSError, ValueError, KeyError):
            continue  # being removed
    return sorted(found, key=lambda each: (each.started_at, each.id))


def _running(folder: Path) -> bool:
    """The run holds a lock for as long as it lives; the kernel frees it however it dies."""
    try:
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _exit_code(folder: Path) -> int | None:
    try:
        return int((folder / "exit").read_text())
    except (OSError, ValueError):
        return None


def _prune() -> None:
    ended, room = [each for each in sessions() if not each.running], KEEP_BYTES
    for number, old in enumerate(reversed(ended)):
        room -= _size(root() / old.id)
        if number >= KEEP or (room < 0 and number > 0):  # of the last one there is always something
            shutil.rmtree(root() / old.id, ignore_errors=True)
    for left in root().glob(".new-*"):  # by a start that was killed
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(left, ignore_errors=True)


def _size(folder: Path) -> int:
    """On the disk: the holes of what is no longer kept are not counted."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    return 0
