"""Which model is loaded where, who waits, what is evicted: see `scheduler.Scheduler`."""

from llm_engine.scheduler.scheduler import Lease, Limits, Scheduler

__all__ = ["Lease", "Limits", "Scheduler"]
