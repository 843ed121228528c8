"""One at a time; the holder is shown; a killed holder blocks nobody; the holder's own children may go in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stackctl.errors import LockHeldError
from stackctl.runtime import lock

HOLD = """
import sys
from stackctl.runtime.lock import stack_lock
with stack_lock("t"):
    print("held", flush=True)
    sys.stdin.read()
"""
TRY = "from stackctl.runtime.lock import stack_lock\nwith stack_lock('t'): print('in')"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@contextmanager
def other_process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_is_refused_and_told_who_has_it() -> None:
    with other_process() as process:
        with pytest.raises(LockHeldError) as caught, lock.stack_lock("t"):
            pass
        assert caught.value.exit_code == 6
        assert str(process.pid) in caught.value.what
        found = lock.holder("t")
        assert found is not None and found["pid"] == process.pid


def test_a_killed_holder_blocks_nobody() -> None:
    with other_process() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.holder("t") is None
        with lock.stack_lock("t"):
            pass


FULL = """
import resource
from stackctl.runtime import lock
with lock.stack_lock("t"):
    assert lock.holder("t") is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
with lock.stack_lock("t"):
    assert lock.holder("t") is None, "who holds it cannot be written"
    print("held", flush=True)
"""


def test_it_can_be_held_on_a_disk_that_is_full() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_waiting_for_the_holder() -> None:
    with other_process() as process:
        with pytest.raises(LockHeldError), lock.stack_lock("t", wait=0.2):
            pass
        assert process.stdin is not None
        process.stdin.close()
        with lock.stack_lock("t", wait=10):
            pass


def test_inside_itself_and_from_a_child_but_not_with_a_forged_variable() -> None:
    with lock.stack_lock("t"), lock.stack_lock("t"):
        done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, check=True)
        assert done.stdout == "in\n"
    forged = {**os.environ, "STACKCTL_LOCK_HOLDER": f"t:{os.getpid()}"}
    with other_process():
        done = subprocess.run(
            [sys.executable, "-c", TRY], env=forged, capture_output=True, text=True, check=False
        )
    assert done.returncode != 0 and "LockHeldError" in done.stderr


def test_looking_never_stands_in_the_way_of_a_change() -> None:
    """Readers in a loop, and changes beside them: none may be refused."""
    with lock.stack_lock("t"):
        pass
    look = "from stackctl.runtime import lock\nprint('on', flush=True)\nwhile True: lock.holder('t')"
    with subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "on\n"
        try:
            for _ in range(300):
                with lock.stack_lock("t"):
                    assert lock.holder("t") is not None
        finally:
            reader.kill()


def test_a_pid_that_was_given_to_another_process_holds_nothing() -> None:
    with other_process():
        text = lock.lock_file("t").read_text()
    forged = text.replace(f'"pid": {lock._read(text)["pid"]}', f'"pid": {os.getpid()}')
    lock.lock_file("t").write_text(forged)
    assert lock.holder("t") is None
