"""Memory that is joined into large pages holds what it held, and is told by the kernel as large."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest
from llm_engine.runner import pages

KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
SIZE = 32 << 20


def large_bytes(address: int) -> int:
    """What of the mapping that holds `address` lies in large pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    return 0


@pytest.mark.skipif(
    KERNEL < (6, 1) or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="this kernel joins no pages on demand",
)
def test_large_memory_is_joined_and_keeps_what_it_holds() -> None:
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        held = np.frombuffer(memory, dtype=np.uint32)
        held[:] = np.arange(len(held), dtype=np.uint32)
        before = large_bytes(held.ctypes.data)
        thread = pages.enlarge()
        assert thread is not None
        thread.join()
        assert large_bytes(held.ctypes.data) > before
        assert bool((held == np.arange(len(held), dtype=np.uint32)).all())
        del held
