"""Which processors a service with a limit is bound to: those that the fewest others are bound to.

All on the first ones would make them wait for each other while the rest of the machine is idle.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable


def pick(limit: float, taken: Iterable[frozenset[int]]) -> frozenset[int]:
    """As many whole processors as the limit needs; part of one is one."""
    load = Counter(cpu for bound in taken for cpu in bound)
    allowed = sorted(os.sched_getaffinity(0), key=lambda cpu: (load[cpu], cpu))
    return frozenset(allowed[: max(1, math.ceil(limit))])
