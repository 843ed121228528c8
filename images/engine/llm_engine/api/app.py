"""Puts the engine together: settings in, an ASGI application and its shared state out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from llm_engine.api.gate import Gate
from llm_engine.api.keys import KeyRing
from llm_engine.api.lookup import Models
from llm_engine.api.metrics import Metrics
from llm_engine.api.origins import Origins
from llm_engine.api.requestlog import RequestLog
from llm_engine.api.router import Router
from llm_engine.api.routes import ENDPOINTS
from llm_engine.api.state import Engine
from llm_engine.api.watchers import MetricsObserver, loaded_models
from llm_engine.models.registry.download import Traffic
from llm_engine.models.registry.pull import Puller
from llm_engine.models.registry.ratelimit import RateLimit
from llm_engine.models.store import ModelStore
from llm_engine.scheduler import Limits, Scheduler
from llm_engine.scheduler.devices import Gpus
from llm_engine.scheduler.plan import Defaults
from llm_engine.settings import Settings


@dataclass(frozen=True)
class App:
    asgi: ASGIApp
    engine: Engine


def defaults_of(settings: Settings, vram: int) -> Defaults:
    """How models are loaded on this machine, where nobody says otherwise."""
    return Defaults(
        context_length=settings.context_length or default_context(vram),
        automatic_context=not settings.context_length,
        num_parallel=settings.num_parallel,
        kv_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
        max_queue=settings.max_queue,
        kv_cells=settings.kv_cells,
        gap_ms=settings.gap_ms,
        park_mb=settings.park_mb,
        prefix_cache=settings.prefix_cache,
        idle_cells=settings.idle_cells,
        lookup=settings.lookup,
        numa=settings.numa,
        split_mode=settings.split_mode,
        tensor_split=settings.tensor_split,
    )


def create_app(settings: Settings) -> App:
    """Must be called inside the event loop that serves it: the scheduler's tasks belong to it."""
    metrics = Metrics()
    gpus = Gpus()
    scheduler = Scheduler(
        defaults_of(settings, sum(gpu.total for gpu in gpus.list())),
        Limits(
            max_queue=settings.max_queue,
            max_loaded_models=settings.max_loaded_models,
            keep_alive=settings.keep_alive,
            load_timeout=settings.load_timeout,
            gpu_overhead=settings.gpu_overhead,
            spread=settings.sched_spread,
        ),
        MetricsObserver(metrics),
        gpus=gpus,
    )
    keys = KeyRing(settings.keys_file) if settings.keys_file else None
    store = ModelStore(settings.models, prune=not settings.noprune)
    puller = Puller(store, traffic=Traffic(rate=RateLimit(settings.pull_rate)))
    requests = RequestLog() if settings.log_requests else None
    engine = Engine(settings, Models(store), puller, scheduler, metrics, keys, requests)
    engine.describe = _description
    loop = asyncio.get_running_loop()
    store.on_change = lambda name: _tell(loop, engine)
    metrics.watch(lambda: scheduler.waiting, lambda: loaded_models(engine))
    asgi = Gate(
        Router(engine, ENDPOINTS),
        allowed_origins=Origins(settings.origins),
        check_host=settings.loopback,
        keys=keys,
        metrics=metrics,
    )
    return App(asgi, engine)


def _tell(loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
    """From the thread that changed the store; the loop may have ended by then."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(engine.forget_stale)


@functools.cache
def _description() -> dict[str, Any]:
    from llm_engine.api import openapi

    return openapi.describe(ENDPOINTS)


def default_context(vram: int) -> int:
    """Ollama's default length of the context, by the GPU memory there is."""
    gib = vram >> 30
    return 262144 if gib >= 47 else 32768 if gib >= 23 else 4096
