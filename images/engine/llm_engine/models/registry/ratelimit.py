"""A limit on bytes per second that all transfers share."""

from __future__ import annotations

import asyncio
import time


class RateLimit:
    def __init__(self, bytes_per_second: int = 0) -> None:
        self.rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Waits until `count` more bytes fit into the limit; no limit costs nothing."""
        if not self.rate:
            return
        now = time.monotonic()
        start = max(self._free_at, now)
        self._free_at = start + count / self.rate
        if start > now:
            await asyncio.sleep(start - now)


def parse_rate(text: str) -> int:
    """`50MB`, `800K`, `1.5G`, bytes per second; 0 or nothing: no limit."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    clean = text.strip().upper().removesuffix("/S").removesuffix("B").strip()
    unit = clean[-1:] if clean[-1:] in ("K", "M", "G") else ""
    number = clean.removesuffix(unit) if unit else clean
    try:
        value = float(number or "0")
    except ValueError:
        value = -1
    if not 0 <= value < 1e15:
        raise ValueError(f"{text!r} is no rate such as 50MB or 800K")
    return int(value * units[unit])
