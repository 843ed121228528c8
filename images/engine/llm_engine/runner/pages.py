"""Large pages for weights that are computed with by the processor.

Each token reads all weights once; in pages of 4 KiB the processor spends a seventh of that time looking up
where they lie. Linux joins pages of memory that is not a file's into ones of 2 MiB when asked to, whatever
its general setting. Guarantees: where the kernel cannot (before 6.1, or no such memory free) everything stays
as it is; nobody waits for it.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

_COLLAPSE = 25  # MADV_COLLAPSE
_LARGE = 2 << 20
# What is smaller stays in the processor's caches anyhow.
LEAST = 8 << 20


def enlarge() -> threading.Thread | None:
    """Join the pages of all large private memory that this process has now, on a thread of its own."""
    if not sys.platform.startswith("linux"):
        return None
    regions = _private()
    thread = threading.Thread(target=_join, args=(regions,), name="pages", daemon=True)
    thread.start()
    return thread


def _private() -> list[tuple[int, int]]:
    """Start and end of each writable mapping that is no file's, in whole large pages."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if len(fields) == 5 and fields[1] == "rw-p":
            start, end = (int(address, 16) for address in fields[0].split("-"))
            start, end = -(-start // _LARGE) * _LARGE, end // _LARGE * _LARGE
            if end - start >= LEAST:
                found.append((start, end))
    return found


def _join(regions: list[tuple[int, int]]) -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in regions:
        # A page at a time: one that cannot be joined ends the call, and computing threads wait for a call.
        for page in range(start, end, _LARGE):
            madvise(page, _LARGE, _COLLAPSE)
