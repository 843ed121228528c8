"""What all handlers share: one object, made once per server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llm_engine.api.keys import KeyRing
from llm_engine.api.metrics import Metrics
from llm_engine.settings import Settings


@dataclass
class Engine:
    settings: Settings
    metrics: Metrics
    keys: KeyRing | None = None
    started: float = field(default_factory=time.time)
    ready: bool = False
    draining: bool = False
