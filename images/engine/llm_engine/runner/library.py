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
from collections.abc import Callable
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


_state: dict[str, Any] = {"started": False, "verbose": False, "callbacks": []}


class MemoryLog:
    """Reads from llama.cpp's log how much memory each device was given, as it is the only place that says
    so.
    """

    _line = re.compile(r"(\S+)\s+(model|KV|RS|output|compute|LoRA)\s+buffer size\s*=\s*([\d.]+) MiB")
    _encoder_on = re.compile(r"CLIP using (\S+) backend")
    _encoder_size = re.compile(r"\bmodel size:\s*([\d.]+) MiB")

    def __init__(self) -> None:
        self.bytes: dict[str, dict[str, int]] = {}
        self._encoder = "CPU"

    def feed(self, text: str) -> None:
        """A line of llama.cpp's own log."""
        found = self._line.search(text)
        if found:
            device, kind, mib = found.groups()
            kinds = self.bytes.setdefault(device, {})
            # A context may be asked for twice; the last line is the one that holds. Model parts add up.
            size = int(float(mib) * 1024 * 1024)
            kinds[kind] = kinds.get(kind, 0) + size if kind in ("model", "KV", "RS") else size

    def feed_media(self, text: str) -> None:
        """A line of the encoders' log, which names the device and the size of the weights one by one."""
        if found := self._encoder_on.search(text):
            self._encoder = found[1]
        elif found := self._encoder_size.search(text):
            kinds = self.bytes.setdefault(self._encoder, {})
            kinds["projector"] = kinds.get("projector", 0) + int(float(found[1]) * 1024 * 1024)

    def totals(self) -> dict[str, int]:
        return {device: sum(kinds.values()) for device, kinds in self.bytes.items()}


memory_log = MemoryLog()
_INFO, _WARN, _ERROR = 2, 3, 4  # of ggml_log_level; below is debugging, above what goes on with a line
errors: list[str] = []
"""What llama.cpp logged as errors, latest last."""


def because() -> str:
    """The first thing llama.cpp complained about since `errors` was cleared; what follows it is usually an
    echo."""
    said = next((line for line in errors if line), "")
    return f": {said.split(': ', 1)[-1].removeprefix('error: ')}" if said else ""


def start(*, verbose: bool = False) -> None:
    """Make llama.cpp usable in this process; a second call does nothing."""
    if _state["started"]:
        return
    _state["verbose"] = verbose
    _listen(lib.llama_log_set, memory_log.feed, range(_ERROR + 2))
    load_backends()
    lib.llama_backend_init()
    _state["started"] = True


def start_media(mtmd: Any) -> None:
    """Listen to the encoders, which keep a logger of their own. At the debug level it says the text of every
    prompt, so that level is not shown even where all else is.
    """
    # This one sets both: the helpers', and the encoders' behind it.
    _listen(mtmd.mtmd_helper_log_set, memory_log.feed_media, range(_INFO, _ERROR + 1))


def _listen(tell: Callable[..., None], feed: Callable[[str], None], levels: range) -> None:
    """Have a log told to us: `feed` learns from it, warnings and errors are shown, or all of these levels."""
    verbose = bool(_state["verbose"])

    def on_log(level: int, text: bytes, _data: object) -> None:
        line = text.decode("utf-8", "replace")
        feed(line)
        if level == _ERROR:
            errors.append(line.strip())
            del errors[:-8]
        if level in (_WARN, _ERROR) or (verbose and level in levels):
            sys.stderr.write(line)
            sys.stderr.flush()

    callback = lib.llama_log_callback(on_log)
    _state["callbacks"].append(callback)  # llama.cpp keeps the pointer; Python must the object
    tell(callback, ctypes.c_void_p(0))


def load_backends() -> None:
    """Register the best CPU library for this processor, and every accelerator library that is present."""
    # Looked up through libllama's own handle: opening libggml by path could load a second copy with its own
    # registry.
    load = getattr(lib._lib, "ggml_backend_load_all_from_path", None)
    if load is not None:
        load.argtypes = [ctypes.c_char_p]
        load.restype = None
        load(str(folder()).encode())
