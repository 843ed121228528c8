"""GET /api/ps: what is in memory, measured, with every name that shares it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from typing_extensions import TypedDict

from llm_engine.api import goencode
from llm_engine.api.endpoint import Call, Reply, json_reply
from llm_engine.api.lookup import details_of
from llm_engine.durations import FOREVER
from llm_engine.scheduler.residency import Residency, State

_FOREVER = timedelta(days=106751)
"""What Go's longest duration comes to: clients show it as "Forever"."""


class Details(TypedDict):
    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str


class LoadedModel(TypedDict):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int
    cache_mode: str
    """What earlier requests are good for: `prefix`, `checkpoint` or `none`; empty while it loads."""
    parked: int
    """Bytes of main memory, beside `size`, that prefixes take which nobody uses now; they make way."""


class PsReply(TypedDict):
    models: list[LoadedModel]


async def ps(call: Call) -> Reply:
    call.engine.forget_stale()
    await call.engine.refresh_stats()
    rows: list[tuple[datetime, dict[str, Any]]] = []
    for residency in call.engine.scheduler.residencies():
        if residency.state is State.EMPTY:
            continue
        expires = _expires(residency)
        for name in residency.names:
            rows.append((expires, _row(call, residency, name, expires)))
    rows.sort(key=lambda row: row[0], reverse=True)
    return json_reply({"models": [row for _, row in rows]})


def _expires(residency: Residency) -> datetime:
    left = residency.expires_in()
    span = _FOREVER if left == FOREVER else timedelta(seconds=min(left, _FOREVER.total_seconds()))
    return datetime.now(UTC) + span


def _row(call: Call, residency: Residency, name: str, expires: datetime) -> dict[str, Any]:
    info = residency.process.info if residency.process is not None else None
    model = call.engine.models.named(name)
    loading = residency.state is State.LOADING
    return {
        "name": name,
        "model": name,
        "size": info.size if info else _promised(residency) if loading else 0,
        "digest": model.digest if model else "",
        "details": details_of(model),
        "expires_at": goencode.timestamp(expires),
        "size_vram": info.size_vram if info else 0,
        "context_length": info.n_ctx if info else residency.plan.num_ctx if residency.plan else 0,
        "cache_mode": info.cache_mode if info else "",
        "parked": call.engine.stats_of(residency).parked_bytes if info else 0,
    }


def _promised(residency: Residency) -> int:
    """What a model that still loads will take, as far as was reckoned."""
    return residency.reserved + sum(residency.vram.values())
