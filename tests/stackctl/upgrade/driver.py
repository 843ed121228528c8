"""`stackctl` that is struck at a chosen moment.

python driver.py MOMENT stackctl-arguments...

MOMENT: a number N: SIGKILL right after the Nth journalled end of a step; `module:function` or
`module:Class.method`: SIGKILL as it is entered; `copy:FOLDER`: nothing is killed, but all that a kill right
after the Nth end of a step would leave on the disk is copied to FOLDER/N; `chat:PORT:DATABASE`: nothing is
killed, but whenever a step ends while the web UI at that port serves, somebody writes a chat into its
database.
"""

import contextlib
import importlib
import os
import shutil
import signal
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from stackctl.cli.main import main
from stackctl.procedures.journal import Journal

KEPT = ("state", "stack.lock")
BORDERS = ("step.done", "step.skipped", "step.not-needed")


def die(*_arguments: Any, **_options: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def after_each_step(do: Callable[[int, str], None]) -> None:
    passed = 0
    append = Journal.append

    def append_and_do(self: Journal, event: str, **fields: Any) -> None:
        nonlocal passed
        append(self, event, **fields)
        if event in BORDERS:
            passed += 1
            do(passed, str(fields["step"]))

    Journal.append = append_and_do  # type: ignore[method-assign]


def on_entering(name: str) -> None:
    module, _, path = name.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, last, die)


def copy(number: int, target: Path) -> None:
    for name in KEPT:
        if Path(name).is_dir():
            shutil.copytree(name, target / str(number) / name, symlinks=True)
            for path in Path(name).rglob("*"):
                own_as(path, target / str(number) / path)
        elif Path(name).exists():
            (target / str(number)).mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, target / str(number) / name)


def own_as(source: Path, target: Path) -> None:
    """A service reads and writes what is its own, in a copy of its data, too."""
    found = source.lstat()
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)


def chat(port: str, database: str, step: str) -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
        with contextlib.closing(sqlite3.connect(database)) as live:
            live.execute("INSERT INTO chat (said) VALUES (?)", (f"while {step}",))
            live.commit()


def drive(moment: str, argv: list[str]) -> None:
    if moment.isdigit():
        after_each_step(lambda passed, _step: die() if passed == int(moment) else None)
    elif moment.startswith("copy:"):
        target = Path(moment.partition(":")[2])
        after_each_step(lambda passed, _step: copy(passed, target))
    elif moment.startswith("chat:"):
        _, port, database = moment.split(":", 2)
        after_each_step(lambda _passed, step: chat(port, database, step))
    else:
        on_entering(moment)
    main(argv)


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2:])
