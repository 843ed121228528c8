"""What Prometheus may know of the engine; every label is bounded.

Routes are the declared ones, model names are those that were served, at most `MAX_MODELS` of them (then
`other`); keys are told by the names of the keys file, never by what they are, at most `MAX_KEYS` of them, and
`-` is whoever came without one. Gauges are read from the scheduler when scraped, so they cannot drift from
the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_MODELS = 50
MAX_KEYS = 200
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_GAP = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class ModelGauges(Protocol):
    """What one loaded model reports when scraped."""

    @property
    def label(self) -> str: ...
    @property
    def ram_bytes(self) -> int: ...
    @property
    def vram_bytes(self) -> int: ...
    @property
    def cells_used(self) -> int: ...
    @property
    def cells(self) -> int: ...
    @property
    def parked_bytes(self) -> int: ...


class Metrics:
    """Counters and histograms, written where things happen."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self._names: set[str] = set()
        self._keys: set[str] = set()
        self.requests = Counter(
            "llm_engine_requests_total",
            "Requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "llm_engine_request_seconds",
            "Time from request to last byte.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.key_requests = Counter(
            "llm_engine_key_requests_total",
            "Requests answered, by the name of the API key.",
            ["key"],
            registry=registry,
        )
        self.key_tokens = Counter(
            "llm_engine_key_tokens_total",
            "Tokens read (prompt) and generated (completion), by the name of the API key.",
            ["key", "kind"],
            registry=registry,
        )
        self.prompt_tokens = self._counter("prompt_tokens_total", "Prompt tokens, cached ones included.")
        self.cached_tokens = self._counter(
            "cached_tokens_total", "Prompt tokens that the prefix cache already held."
        )
        self.completion_tokens = self._counter("completion_tokens_total", "Tokens generated.")
        self.drafted_tokens = self._counter("drafted_tokens_total", "Tokens that speculation guessed.")
        self.accepted_tokens = self._counter("accepted_tokens_total", "Guessed tokens that were right.")
        self.first_token = self._histogram(
            "first_token_seconds", "Time from request to first token.", _SECONDS
        )
        self.token_gap = self._histogram("token_gap_seconds", "Time between two pieces of one answer.", _GAP)
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "Time a request waited for its model.", _SECONDS
        )
        self.load_seconds = self._histogram("load_seconds", "Time to load a model.", _SECONDS)
        self.loads = self._counter("loads_total", "Models loaded.")
        self.load_failures = self._counter("load_failures_total", "Loads that failed.")
        self.evictions = self._counter("evictions_total", "Models unloaded to make room for another.")
        self.crashes = self._counter("runner_crashes_total", "Runners that ended by themselves.")
        self.gpu_lost = Counter(
            "llm_engine_gpu_lost_total", "Times a GPU in use disappeared.", registry=registry
        )
        self.cancelled = self._counter("cancelled_total", "Answers that the client did not wait for.")
        self.rejected = Counter(
            "llm_engine_rejected_total", "Requests refused because the queue was full.", registry=registry
        )
        self.loop_lag = Histogram(
            "llm_engine_event_loop_lag_seconds",
            "How late the event loop runs a timer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
            registry=registry,
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"llm_engine_{name}", text, ["model"], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"llm_engine_{name}", text, ["model"], buckets=buckets, registry=self.registry)

    def label(self, model: str) -> str:
        """The label of a model, `other` when too many were seen."""
        if model not in self._names:
            if len(self._names) >= MAX_MODELS:
                return "other"
            self._names.add(model)
        return model

    def _key(self, name: str) -> str:
        if name not in self._keys:
            if len(self._keys) >= MAX_KEYS:
                return "other"
            self._keys.add(name)
        return name

    def prompt_read(self, model: str, key: str, tokens: int) -> None:
        """Tokens that were read and that no text follows: of vectors, of documents to compare."""
        self.prompt_tokens.labels(self.label(model)).inc(tokens)
        self.spent(key, prompt=tokens)

    def spent(self, key: str, *, prompt: int = 0, completion: int = 0) -> None:
        """Tokens on the account of a key."""
        for kind, count in (("prompt", prompt), ("completion", completion)):
            self.key_tokens.labels(self._key(key), kind).inc(count)

    def request(self, route: str, method: str, status: int, seconds: float, key: str) -> None:
        self.key_requests.labels(self._key(key)).inc()
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def watch(self, queue: Callable[[], int], loaded: Callable[[], Iterable[ModelGauges]]) -> None:
        """Adds the gauges that are read at scrape time."""
        length = Gauge(
            "llm_engine_queue_length", "Requests waiting for a model or a slot.", registry=self.registry
        )
        length.set_function(lambda: float(queue()))
        self.registry.register(_LoadedModels(loaded))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _LoadedModels(Collector):
    def __init__(self, loaded: Callable[[], Iterable[ModelGauges]]) -> None:
        self.loaded = loaded

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        models = list(self.loaded())
        yield GaugeMetricFamily("llm_engine_loaded_models", "Models in memory.", value=len(models))
        families = {
            "ram_bytes": GaugeMetricFamily(
                "llm_engine_model_ram_bytes", "Main memory of a model.", labels=["model"]
            ),
            "vram_bytes": GaugeMetricFamily(
                "llm_engine_model_vram_bytes", "GPU memory of a model.", labels=["model"]
            ),
            "parked_bytes": GaugeMetricFamily(
                "llm_engine_model_parked_bytes",
                "Main memory of a model's prefixes that nobody uses now.",
                labels=["model"],
            ),
            "cells_used": GaugeMetricFamily("llm_engine_kv_cells_used", "KV cells in use.", labels=["model"]),
            "cells": GaugeMetricFamily("llm_engine_kv_cells", "KV cells there are.", labels=["model"]),
        }
        for name, family in families.items():
            # Two may share a label: what a name stood for before, on its way out, or those called `other`.
            sums: dict[str, float] = {}
            for model in models:
                sums[model.label] = sums.get(model.label, 0.0) + float(getattr(model, name))
            for label, value in sums.items():
                family.add_metric([label], value)
            yield family
