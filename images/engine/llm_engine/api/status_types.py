"""What GET /api/status says."""

from __future__ import annotations

from typing_extensions import TypedDict


class Cloud(TypedDict):
    disabled: bool
    source: str


class Queue(TypedDict):
    waiting: int
    limit: int


class Speculation(TypedDict):
    drafted: int
    accepted: int


class LoadedModel(TypedDict):
    names: list[str]
    state: str
    active: int
    queued: int
    slots: int
    progress: float
    pinned: bool
    idle_seconds: float
    size: int
    size_vram: int
    context_length: int
    cells: int
    cells_used: int
    cells_cached: int
    parked: int
    speculation: Speculation


class RunningRequest(TypedDict):
    position: int | None
    request_id: str
    client: str
    path: str
    model: str
    state: str
    seconds: float


class StatusReply(TypedDict):
    cloud: Cloud
    version: str
    uptime_seconds: float
    ready: bool
    gpu_lost: str | None
    queue: Queue
    models: list[LoadedModel]
    requests: list[RunningRequest]
    tasks: int
