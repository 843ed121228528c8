"""Routes that no other API has: alive, ready, metrics, what is going on, and the tokenizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from typing_extensions import TypedDict

from llm_engine import __version__
from llm_engine.api import goencode
from llm_engine.api.endpoint import Call, Reply, json_reply, text_reply
from llm_engine.api.errors import ApiError, bad_request
from llm_engine.api.failures import runner_error
from llm_engine.api.lookup import files_of, find_model, options_for
from llm_engine.api.ollama_types import DetokenizeRequest, TokenizeRequest
from llm_engine.api.status_types import LoadedModel, StatusReply
from llm_engine.scheduler.process import RunnerError


class VersionReply(TypedDict):
    version: str


class HealthReply(TypedDict):
    status: str


class TokenizeReply(TypedDict):
    model: str
    tokens: list[int]


class DetokenizeReply(TypedDict):
    model: str
    content: str


async def root(call: Call) -> Reply:
    return text_reply("Ollama is running")


async def version(call: Call) -> Reply:
    return json_reply({"version": __version__})


async def healthz(call: Call) -> Reply:
    """Alive: the event loop answers."""
    return json_reply({"status": "ok"})


async def readyz(call: Call) -> Reply:
    """Ready: new requests will be served, and no GPU has gone missing."""
    engine = call.engine
    lost = await engine.lost_gpu()
    if engine.draining or not engine.ready or lost:
        reason = f"gpu lost: {lost}" if lost else "shutting down" if engine.draining else "starting"
        return json_reply({"status": reason}, 503)
    return json_reply({"status": "ok"})


async def metrics(call: Call) -> Reply:
    await call.engine.refresh_stats()
    return Reply(await asyncio.to_thread(call.engine.metrics.render), 200, CONTENT_TYPE_LATEST)


async def status(call: Call) -> Reply:
    """What is loaded, running and waiting, and for how long. `cloud` is what Ollama's own clients look
    for."""
    engine = call.engine
    await engine.refresh_stats()
    now = time.monotonic()
    loaded: list[LoadedModel] = []
    for residency in engine.scheduler.residencies():
        info = residency.process.info if residency.process is not None else None
        stats = engine.stats_of(residency)
        loaded.append(
            {
                "names": list(residency.names),
                "state": residency.state.value,
                "active": residency.active,
                "queued": len(residency.queue),
                "slots": residency.slots,
                "progress": round(residency.progress, 3) if residency.state.value == "loading" else 1.0,
                "pinned": residency.pinned,
                "idle_seconds": 0.0 if residency.active else round(now - residency.last_used, 3),
                "size": info.size if info else 0,
                "size_vram": info.size_vram if info else 0,
                "context_length": info.n_ctx if info else 0,
                "cells": info.cells if info else 0,
                "cells_used": stats.cells_active,
                "cells_cached": stats.cells_cached,
                "parked": stats.parked_bytes,
                "speculation": {"drafted": stats.drafted_tokens, "accepted": stats.accepted_tokens},
            }
        )
    places = engine.scheduler.positions()
    requests = [entry.describe(now, places.get(entry.request_id)) for entry in engine.running.values()]
    told: StatusReply = {
        "cloud": {"disabled": True, "source": "config"},
        "version": __version__,
        "uptime_seconds": round(time.time() - engine.started, 3),
        "ready": engine.ready and not engine.draining,
        "gpu_lost": await engine.lost_gpu(),
        "queue": {"waiting": engine.scheduler.waiting, "limit": engine.settings.max_queue},
        "models": loaded,
        "requests": requests,
        "tasks": len(asyncio.all_tasks()),
    }
    return json_reply(told)


class StoppedReply(TypedDict):
    stopped: int


async def stop_request(call: Call) -> Reply:
    """With keys, everybody may stop what came with his own."""
    wanted, engine = call.path_params["request_id"], call.engine
    mine = [
        entry
        for entry in engine.running.values()
        if entry.request_id == wanted and (engine.keys is None or entry.client == call.client)
    ]
    if not mine:
        raise ApiError(404, f"no request '{wanted}' is running or waiting")
    for entry in mine:
        entry.stop()
    return json_reply({"stopped": len(mine)})


async def tokenize(call: Call) -> Reply:
    request = await call.json(TokenizeRequest)
    model = await find_model(call, request.model)
    keep_alive = request.keep_alive.seconds if request.keep_alive else None
    async with call.engine.use(
        call, files_of(model), options_for(model).runner, keep_alive, slotless=True
    ) as lease:
        try:
            tokens = await lease.runner.tokenize(
                request.content, add_special=request.add_special, parse_special=request.parse_special
            )
        except RunnerError as error:
            raise runner_error(error.kind, error.text) from None
    return json_reply({"model": request.model, "tokens": tokens})


async def detokenize(call: Call) -> Reply:
    request = await call.json(DetokenizeRequest)
    model = await find_model(call, request.model)
    keep_alive = request.keep_alive.seconds if request.keep_alive else None
    async with call.engine.use(
        call, files_of(model), options_for(model).runner, keep_alive, slotless=True
    ) as lease:
        await call.work(_check_tokens, request.tokens, lease.runner.info.n_vocab)
        try:
            content = await lease.runner.detokenize(request.tokens)
        except RunnerError as error:
            raise runner_error(error.kind, error.text) from None
    return json_reply({"model": request.model, "content": content})


def _check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < vocabulary:
            raise bad_request(f"token {token} is not in the vocabulary of {vocabulary}")


async def openapi(call: Call) -> Reply:
    """The description of every route, made from the table that routes them."""
    return Reply(await asyncio.to_thread(lambda: goencode.dumps(call.engine.describe())))


async def unavailable(call: Call) -> Reply:
    raise ApiError(503, "account unavailable")


async def no_web_search(call: Call) -> Reply:
    raise ApiError(403, "ollama cloud is disabled: web search is unavailable")


async def no_web_fetch(call: Call) -> Reply:
    raise ApiError(403, "ollama cloud is disabled: web fetch is unavailable")
