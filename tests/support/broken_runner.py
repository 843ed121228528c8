"""A runner that fails an assertion of llama.cpp at a place of one's choice, by its own `ggml_abort`."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

SAYS = "llama-context.cpp:1787: GGML_ASSERT(n_ubatch >= n_tokens) failed"
_PROGRAM = """#!{python}
import ctypes, glob, socket, sys
from llm_engine.runner import child, library, machine

def fail(*_):
    base = ctypes.CDLL(glob.glob(str(library.folder()) + "/libggml-base*")[0])
    base.ggml_abort(b"llama-context.cpp", 1787, b"GGML_ASSERT(%s) failed", b"n_ubatch >= n_tokens")

machine.Machine.{method} = fail
child.serve(socket.socket(fileno=int(sys.argv[-1])))
"""


def program(path: Path, method: str) -> str:
    """To stand in for the interpreter (`sys.executable`) that a runner is started with."""
    path.write_text(_PROGRAM.format(python=sys.executable, method=method))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
