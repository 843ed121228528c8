"""Which model is loaded where, who waits, what is evicted: see `scheduler.Scheduler`."""

from llm_engine.scheduler.room import Limits
from llm_engine.scheduler.scheduler import Lease, Scheduler

__all__ = ["Lease", "Limits", "Scheduler"]
