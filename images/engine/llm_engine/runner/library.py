"""Loading llama.cpp: back-ends first, its log captured, and a cheap import.

The wheel carries one CPU library per instruction-set level; none is used until `load_backends` has scored
them against this processor. The bindings' package imports a whole chat stack on import, which the runner has
no use for and which costs it most of its start-up; importing the low-level module alone avoids that.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any


def _bindings() -> Any:
    """`llama_cpp.llama_cpp` without running `llama_cpp/__init__`, unless something else already has."""
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("llama-cpp-python is not installed")
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


lib: Any = _bindings()


def folder() -> Path:
    return Path(lib._base_path)


_state: dict[str, Any] = {"started": False}


class MemoryLog:
    """Reads from llama.cpp's log how much memory each device was given, as it is the only place that says
    so.
    """

    _line = re.compile(r"(\S+)\s+(model|KV|RS|output|compute|LoRA)\s+buffer size\s*=\s*([\d.]+) MiB")

    def __init__(self) -> None:
        self.bytes: dict[str, dict[str, int]] = {}

    def feed(self, text: str) -> None:
        found = self._line.search(text)
        if found:
            device, kind, mib = found.groups()
            kinds = self.bytes.setdefault(device, {})
            # A context may be asked for twice; the last line is the one that holds. Model parts add up.
            size = int(float(mib) * 1024 * 1024)
            kinds[kind] = kinds.get(kind, 0) + size if kind in ("model", "KV", "RS") else size

    def totals(self) -> dict[str, int]:
        return {device: sum(kinds.values()) for device, kinds in self.bytes.items()}


memory_log = MemoryLog()
_WARN, _ERROR = 3, 4  # of ggml_log_level
errors: list[str] = []
"""What llama.cpp logged as errors, latest last."""


def start(*, verbose: bool = False) -> None:
    """Make llama.cpp usable in this process; a second call does nothing."""
    if _state["started"]:
        return

    def on_log(level: int, text: bytes, _data: object) -> None:
        line = text.decode("utf-8", "replace")
        memory_log.feed(line)
        if level == _ERROR:
            errors.append(line.strip())
            del errors[:-8]
        if verbose or level in (_WARN, _ERROR):
            sys.stderr.write(line)
            sys.stderr.flush()

    callback = lib.llama_log_callback(on_log)
    _state["callback"] = callback  # llama.cpp keeps the pointer; Python must keep the object
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    load_backends()
    lib.llama_backend_init()
    _state["started"] = True


def load_backends() -> None:
    """Register the best CPU library for this processor, and every accelerator library that is present."""
    # Looked up through libllama's own handle: opening libggml by path could load a second copy with its own
    # registry.
    load = getattr(lib._lib, "ggml_backend_load_all_from_path", None)
    if load is not None:
        load.argtypes = [ctypes.c_char_p]
        load.restype = None
        load(str(folder()).encode())
