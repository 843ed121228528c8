"""Quantising with llama.cpp's own quantiser, in a process of its own: it may abort, and it must be stoppable.

The child prints one line per tensor; the parent turns these into progress.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from llm_engine.models.errors import CreateError, StoreFull
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.status import Status

# Targets by name, with llama.cpp's number. The first five are Ollama's; the others cost nothing to offer.
TARGETS = {
    "F32": 0, "F16": 1, "BF16": 32, "Q4_K_S": 14, "Q4_K_M": 15, "Q8_0": 7,
    "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13,
    "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30,
}  # fmt: skip
ALIASES = {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q3_K": "Q3_K_M"}
LITTLE_SPACE = 1024 * 1024  # llama.cpp does not say why it could not write
SOURCES = ("F32", "F16", "BF16")
_PROGRESS = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


def check_target(text: str) -> str:
    """The canonical name of a quantisation; CreateError when there is none of that name."""
    name = ALIASES.get(text.upper(), text.upper())
    if name not in TARGETS:
        raise CreateError(f"unsupported quantization type {name} - supported types are {', '.join(TARGETS)}")
    return name


def quantize(source: GGUFFile, target: str, out: Path) -> Generator[Status, None, None]:
    """Writes `source` quantised to `out`; progress in bytes of the source."""
    name = check_target(target)
    if source.file_type not in SOURCES:
        raise CreateError("quantization is only supported for F16, BF16 and F32 models")
    text = f"quantizing {source.file_type} model to {name}"
    zero = "0" * 19  # Ollama's stand-in for a digest that is not known yet
    command = [sys.executable, "-m", __name__, str(source.path), str(out), name]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    tail: list[str] = []
    done = full = False
    try:
        assert child.stdout is not None
        yield Status(text, zero, source.size, 0)
        for line in child.stdout:
            if match := _PROGRESS.search(line):
                at, of = int(match[1]), int(match[2])
                yield Status(text, zero, source.size, source.size * at // max(of, 1))
            elif line.strip():
                tail = [*tail[-4:], line.strip()]
        done = child.wait() == 0
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if not done:
            space = os.statvfs(out.parent)
            full = space.f_bavail * space.f_frsize < LITTLE_SPACE
            out.unlink(missing_ok=True)
    if full:
        raise StoreFull(str(out.parent))
    if not done:
        raise CreateError(
            f"llama.cpp could not quantize the model to {name}: {' / '.join(tail) or 'it gave no reason'}"
        )
    yield Status("verifying conversion")


def _child(source: str, out: str, target: str) -> int:
    from llm_engine.runner.library import lib, load_backends

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def log(_level: int, text: bytes, _data: object) -> None:
        sys.stdout.write(text.decode("utf-8", "replace"))
        sys.stdout.flush()

    lib.llama_log_set(log, ctypes.c_void_p(0))
    load_backends()
    params = lib.llama_model_quantize_default_params()
    params.ftype = TARGETS[target]
    return int(lib.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(1 if _child(*sys.argv[1:4]) else 0)
