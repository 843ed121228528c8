"""Does the engine answer, is it ready, has it the models, are they loaded, do requests pile up?"""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.http import HttpError, HttpTimeout
from stackctl.health.limits import limits
from stackctl.health.look.metrics import total
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, ok, skipped, unknown
from stackctl.health.plan import Model
from stackctl.health.silence import in_window


def checks(scene: Scene) -> list[Check]:
    if scene.plan.service("engine") is None:
        return []
    return [
        Check(
            id="engine",
            title="Engine answers and is ready",
            looks_at="GET /healthz and /readyz through the published port",
            why="a container can run while the server inside hangs, or its port is not published",
            do="stackctl logs engine --tail 50; stackctl restart engine",
            run=partial(_alive, scene),
            needs=("container.engine",),
        ),
        Check(
            id="models",
            title="Desired models are there",
            looks_at="/api/tags against models: in the stack file, by name and pinned digest",
            why="a missing or silently changed model shows only when somebody asks for it",
            do="stackctl models sync",
            run=partial(_models, scene),
            needs=("engine",),
        ),
        Check(
            id="resident",
            title="Resident models are loaded",
            looks_at="/api/ps for the models marked resident: true, within health.business_hours",
            why="a model that was unloaded makes the next user wait for its load",
            do="stackctl models load NAME",
            run=partial(_resident, scene),
            needs=("models",),
        ),
        Check(
            id="queue",
            title="Requests do not pile up",
            looks_at="llm_engine_queue_length and refused requests in /metrics",
            why="a queue that does not drain means a stuck runner, or more users than the GPU can serve",
            do="stackctl top; stackctl restart engine when it does not move",
            run=partial(_queue, scene),
            needs=("engine",),
            thresholds="warn, crit: waiting requests (8, 64)",
        ),
    ]


def _alive(scene: Scene, look: Look) -> Result:
    try:
        alive = scene.ask("engine", "/healthz", timeout=min(look.left, 5))
        if alive.status == 404:
            # An Ollama server has no /healthz; its root says that it runs.
            alive = scene.ask("engine", "/", timeout=min(look.left, 5))
            return _answer(alive.status, "answers", alive.text)
        if alive.status != 200:
            return _answer(alive.status, "", alive.text)
        ready = scene.ask("engine", "/readyz", timeout=look.left)
    except HttpTimeout as error:
        return Result(Status.CRITICAL, f"does not answer: {error}")
    except HttpError as error:
        return Result(Status.CRITICAL, str(error))
    return _answer(ready.status, "answers and is ready", ready.text)


def _answer(status: int, well: str, text: str) -> Result:
    if status == 200:
        return ok(well)
    return Result(Status.CRITICAL, f"not ready: HTTP {status}: {' '.join(text.split())[:120]}")


def _models(scene: Scene, look: Look) -> Result:
    if not scene.plan.models:
        return skipped("no models: in the stack file")
    try:
        there = {str(model.get("name")): str(model.get("digest", "")) for model in scene.tags()}
    except HttpError as error:
        return unknown(str(error))
    wrong = [text for model in scene.plan.models if (text := _mismatch(model, there))]
    if wrong:
        return Result(Status.CRITICAL, f"{len(wrong)} of {len(scene.plan.models)} wrong: {'; '.join(wrong)}")
    return ok(f"all {len(scene.plan.models)} are there", metrics=(Metric("models", len(there)),))


def _mismatch(model: Model, there: dict[str, str]) -> str | None:
    if model.name not in there:
        return f"{model.name} is missing"
    found, wanted = there[model.name].removeprefix("sha256:"), (model.digest or "").removeprefix("sha256:")
    if wanted and found != wanted:
        return f"{model.name} is {found[:12]}, pinned is {wanted[:12]}"
    return None


def _resident(scene: Scene, look: Look) -> Result:
    wanted = [model.name for model in scene.plan.models if model.resident]
    if not wanted:
        return skipped("no model is marked resident: true")
    hours = scene.plan.health.business_hours
    if hours is not None and not in_window(hours, look.now.wall):
        return ok("outside business hours")
    try:
        loaded = {str(model.get("name")) for model in scene.ps()}
    except HttpError as error:
        return unknown(str(error))
    missing = [name for name in wanted if name not in loaded]
    if missing:
        return Result(
            Status.WARNING, f"not loaded: {', '.join(missing)}", fix=f"stackctl models load {missing[0]}"
        )
    return ok(f"loaded: {', '.join(wanted)}")


def _queue(scene: Scene, look: Look) -> Result:
    try:
        samples = scene.metrics()
    except HttpError as error:
        return unknown(str(error))
    if "llm_engine_queue_length" not in samples:
        return skipped("this engine has no /metrics of ours")
    warn, crit = limits(scene.plan, "queue")
    waiting = total(samples, "llm_engine_queue_length")
    refused = total(samples, "llm_engine_rejected_total")
    news = max(0.0, refused - float(look.memory.get("refused", refused)))
    status = Status.CRITICAL if waiting >= crit else Status.WARNING if waiting >= warn or news else Status.OK
    text = f"{waiting:g} waiting" + (f", {news:g} refused since the last look" if news else "")
    metrics = (Metric("waiting", waiting, "", warn, crit, 0), Metric("refused", refused, "c"))
    return Result(status, text, metrics=metrics, memory={"refused": refused})
