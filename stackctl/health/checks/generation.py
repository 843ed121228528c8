"""Does a loaded model really answer, and as fast as it used to?

A few tokens are asked of one model that is loaded anyway: a health check must not load models, nor keep
them alive, so it asks for the time that was left. When users' own requests succeeded since the last look,
nothing is asked at all.

The speed is compared with the median of earlier looks at the same weights; slow looks are not learned from.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from stackctl.health.check import Check, Look
from stackctl.health.http import HttpError, HttpTimeout
from stackctl.health.limits import limits
from stackctl.health.look.metrics import total
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, not_now, ok, unknown

TOKENS = 16
_LEARN = 5
_KEEP = 30
_FOREVER = 10 * 365 * 86400
# Below these, a difference in seconds is noise, whatever the ratio.
_FIRST_NOISE = 0.25
_TOKENS_NOISE = 0.15


@dataclass(frozen=True)
class Speed:
    first: float
    rate: float | None


def checks(scene: Scene) -> list[Check]:
    if scene.plan.service("engine") is None:
        return []
    return [
        Check(
            id="generation",
            title="A model answers at its usual speed",
            looks_at=f"{TOKENS} tokens from a loaded model: time to the first, tokens/s, against its median",
            why="a server can answer every status question while no model computes, or computes on the CPU",
            do="stackctl restart engine; stackctl health --forget generation when slower is right now",
            run=partial(_look, scene),
            needs=("engine",),
            timeout=30,
            thresholds="warn, crit: share of the usual speed (50%, 10%)",
        )
    ]


def _look(scene: Scene, look: Look) -> Result:
    memory = dict(look.memory)
    try:
        served = _served(scene)
        before = memory.get("served")
        busy = served is not None and before is not None and served > before
        memory["served"] = served
        if busy and not look.asked:
            return ok("users' own requests succeeded since the last look", memory=memory)
        loaded = [model for model in scene.ps() if "bert" not in str(model.get("details", {}).get("family"))]
    except HttpError as error:
        return unknown(str(error))
    if not loaded:
        return not_now("no model is loaded", memory=memory)
    model = loaded[0]
    try:
        speed = _generate(scene, model, look)
    except HttpTimeout:
        return Result(Status.CRITICAL, f"{model['name']} gave no answer in time")
    except HttpError as error:
        return Result(Status.CRITICAL, f"{model['name']}: {error}")
    if speed is None:
        return not_now(f"{model['name']} does not generate text")
    result = _judge(scene, model, speed, memory)
    after = _served(scene)
    return Result(
        result.status, result.summary, metrics=result.metrics, memory={**memory, "served": after or served}
    )


def _served(scene: Scene) -> float | None:
    """Tokens generated so far, our own included; None when the engine does not say."""
    try:
        samples = scene.metrics()
    except HttpError:
        return None
    name = "llm_engine_completion_tokens_total"
    return total(samples, name) if name in samples else None


def _generate(scene: Scene, model: dict[str, Any], look: Look) -> Speed | None:
    body = {
        "model": model["name"],
        "prompt": "Count: one, two,",
        "stream": False,
        "keep_alive": _left(model, look.now.wall),
        "options": {"num_predict": TOKENS, "temperature": 0},
    }
    begun = time.monotonic()
    reply = scene.ask(
        "engine", "/api/generate", timeout=look.left, method="POST", body=json.dumps(body).encode()
    )
    wall = time.monotonic() - begun
    if reply.status == 400 and "not support" in reply.text:
        return None
    if reply.status != 200:
        raise HttpError(f"HTTP {reply.status}: {' '.join(reply.text.split())[:160]}")
    answer = reply.json()
    count, spent = int(answer.get("eval_count") or 0), float(answer.get("eval_duration") or 0) / 1e9
    if count < 1:
        raise HttpError("answered without a single token")
    rate = count / spent if count > 1 and spent > 0 else None
    return Speed(max(0.0, wall - spent), rate)


def _left(model: dict[str, Any], wall: float) -> int:
    """The keep_alive that leaves the model's end where it is."""
    try:
        text = str(model["expires_at"])
        whole, dot, rest = text.partition(".")
        zone = rest.lstrip("0123456789") if dot else ""
        seconds = datetime.fromisoformat((whole + zone).replace("Z", "+00:00")).timestamp() - wall
    except (KeyError, ValueError, OverflowError):
        return 300
    return -1 if seconds > _FOREVER else max(1, round(seconds))


def _judge(scene: Scene, model: dict[str, Any], speed: Speed, memory: dict[str, Any]) -> Result:
    warn, crit = limits(scene.plan, "generation")
    books: dict[str, Any] = memory.setdefault("speeds", {})
    book = books.setdefault(str(model.get("digest") or model["name"])[:19], {"first": [], "rate": []})
    usual_first = statistics.median(book["first"]) if len(book["first"]) >= _LEARN else None
    usual_rate = statistics.median(book["rate"]) if len(book["rate"]) >= _LEARN else None
    status, notes = Status.OK, []
    if usual_rate and speed.rate and TOKENS / speed.rate - TOKENS / usual_rate > _TOKENS_NOISE:
        status, note = _compare(speed.rate / usual_rate, warn, crit)
        notes += [f"{note}: {speed.rate:.1f} tokens/s, usual {usual_rate:.1f}"] if note else []
    if usual_first is not None and speed.first - usual_first > _FIRST_NOISE:
        late, note = _compare(usual_first / speed.first, warn, crit)
        notes += [f"{note}: first token after {speed.first:.2f} s, usual {usual_first:.2f} s"] if note else []
        status = max(status, late)
    if status is Status.OK:
        book["first"] = [*book["first"], round(speed.first, 4)][-_KEEP:]
        if speed.rate:
            book["rate"] = [*book["rate"], round(speed.rate, 2)][-_KEEP:]
        while len(books) > 20:
            books.pop(next(iter(books)))
    rate = f", {speed.rate:.1f} tokens/s" if speed.rate else ""
    text = "; ".join(notes) or f"{model['name']}: first token after {speed.first:.2f} s{rate}"
    metrics = [Metric("first_token", round(speed.first, 4), "s")]
    if speed.rate:
        metrics.append(Metric("tokens_per_second", round(speed.rate, 2)))
    return Result(status, text, metrics=tuple(metrics))


def _compare(share: float, warn: float, crit: float) -> tuple[Status, str]:
    if share < crit:
        return Status.CRITICAL, f"{share:.0%} of the usual speed"
    if share < warn:
        return Status.WARNING, f"{share:.0%} of the usual speed"
    return Status.OK, ""
