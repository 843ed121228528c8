"""What users see: the 95th percentile of the time to first token, and the share of requests that fail on
our side.

Both look at what happened since the last look, so an old incident does not colour today.
"""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.http import HttpError
from stackctl.health.limits import limits
from stackctl.health.look.metrics import buckets, quantile, since, total
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, ok, skipped, unknown

_FEW = 5


def checks(scene: Scene) -> list[Check]:
    if scene.plan.service("engine") is None:
        return []
    return [
        Check(
            id="latency",
            title="First tokens come soon",
            looks_at="95th percentile of llm_engine_first_token_seconds since the last look",
            why="users leave a slow service before they report it",
            do="stackctl top: is one user flooding it, is a model on the CPU?",
            run=partial(_latency, scene),
            needs=("engine",),
            thresholds="warn, crit: seconds (10s, 60s)",
        ),
        Check(
            id="errors",
            title="Requests succeed",
            looks_at="share of 5xx answers in llm_engine_requests_total since the last look",
            why="what fails for users may work for the probe",
            do="stackctl logs engine --since 15m",
            run=partial(_errors, scene),
            needs=("engine",),
            thresholds=f"warn, crit: share of at least {_FEW} requests (5%, 25%)",
        ),
    ]


def _latency(scene: Scene, look: Look) -> Result:
    try:
        counts = buckets(scene.metrics(), "llm_engine_first_token_seconds")
    except HttpError as error:
        return unknown(str(error))
    if not counts and "llm_engine_queue_length" not in scene.metrics():
        return skipped("this engine has no /metrics of ours")
    warn, crit = limits(scene.plan, "latency")
    p95 = quantile(0.95, since(counts, look.memory.get("counts", counts)))
    memory = {"counts": counts}
    if p95 is None:
        return ok("no requests since the last look", memory=memory)
    status = Status.CRITICAL if p95 >= crit else Status.WARNING if p95 >= warn else Status.OK
    metrics = (Metric("first_token_p95", round(p95, 4), "s", warn, crit, 0),)
    return Result(status, f"95% of first tokens within {p95:.2f} s", metrics=metrics, memory=memory)


def _errors(scene: Scene, look: Look) -> Result:
    try:
        samples = scene.metrics()
    except HttpError as error:
        return unknown(str(error))
    name = "llm_engine_requests_total"
    if name not in samples and "llm_engine_queue_length" not in samples:
        return skipped("this engine has no /metrics of ours")
    # 503 is the queue's business: it is said there, and it is not an error of the engine.
    failed = total(samples, name, status="5*") - total(samples, name, status="503")
    counts = {"all": total(samples, name), "failed": failed}
    grown = since(counts, look.memory.get("counts", counts))
    warn, crit = limits(scene.plan, "errors")
    memory = {"counts": counts}
    if not grown["all"]:
        return ok("no requests since the last look", memory=memory)
    share = grown["failed"] / grown["all"]
    enough = grown["all"] >= _FEW
    status = Status.OK
    if enough:
        status = Status.CRITICAL if share >= crit else Status.WARNING if share >= warn else Status.OK
    text = f"{grown['failed']:g} of {grown['all']:g} requests failed since the last look"
    return Result(
        status, text, metrics=(Metric("failed_share", round(share, 4), "", warn, crit, 0),), memory=memory
    )
