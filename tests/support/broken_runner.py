"""A runner that fails an assertion of llama.cpp at a place of one's choice, by its own `ggml_abort`, or that
stands still there.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

SAYS = "llama-context.cpp:1787: GGML_ASSERT(n_ubatch >= n_tokens) failed"
STANDS = "it stands still here"
_PROGRAM = """#!{python}
import ctypes, glob, importlib, os, socket, sys, time
from llm_engine.runner import child, library

def fail():
    base = ctypes.CDLL(glob.glob(str(library.folder()) + "/libggml-base*")[0])
    base.ggml_abort(b"llama-context.cpp", 1787, b"GGML_ASSERT(%s) failed", b"n_ubatch >= n_tokens")

def stand():
    print({stands!r}, file=sys.stderr, flush=True)
    time.sleep(10**6)

def put(module, *names):
    holder = importlib.import_module("llm_engine.runner." + module)
    for name in names[:-1]:
        holder = getattr(holder, name)
    original = getattr(holder, names[-1])

    def instead(*args, **options):
        if {flag!r} is None:
            fail()
        if os.path.exists({flag!r}):
            stand()
        return original(*args, **options)

    setattr(holder, names[-1], instead)

put(*{place!r}.split("."))
child.serve(socket.socket(fileno=int(sys.argv[-1])))
"""


def program(path: Path, place: str, *, stands_when: Path | None = None) -> str:
    """To stand in for the interpreter (`sys.executable`) that a runner is started with. `place` is a function
    below the runner's package; `stands_when`: instead of failing there it stands still, once this file is.
    """
    flag = str(stands_when) if stands_when is not None else None
    path.write_text(_PROGRAM.format(python=sys.executable, place=place, flag=flag, stands=STANDS))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
