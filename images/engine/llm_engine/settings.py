"""What the server was told: Ollama's environment variables with their own meaning, and the engine's own
beside them.

Read once at start; everything else receives the frozen result. A number that cannot be read is reported
and its default used, as Ollama does; a flag that cannot be read counts as true.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from llm_engine.durations import FOREVER, InvalidDuration, parse_duration
from llm_engine.models.registry.ratelimit import parse_rate
from llm_engine.runner.messages import NUMA, SPLIT_MODES

log = logging.getLogger("llm_engine.settings")

# Beyond this many guesses at a time, nearly all are in vain, and each needs room for its logits.
MAX_LOOKUP = 64


@dataclass(frozen=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 11434
    models: Path = field(default_factory=lambda: Path.home() / ".ollama" / "models")
    keep_alive: float = 300.0
    load_timeout: float = 300.0
    max_loaded_models: int = 0
    max_queue: int = 512
    num_parallel: int = 0
    context_length: int = 0
    origins: tuple[str, ...] = ()
    debug: bool = False
    log_requests: bool = False
    flash_attention: bool | None = None
    kv_cache_type: str = "f16"
    gpu_overhead: int = 0
    sched_spread: bool = False
    noprune: bool = False
    go_template: bool = True
    # Ours: what Ollama has no setting for.
    keys_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body: int = 256 * 1024 * 1024
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    shutdown_grace: float = 5.0
    kv_cells: int = 0
    """Tokens that the cache of a model holds for all its requests together; 0: context length x parallel."""
    gap_ms: int = 400
    """While prompts are read, running streams wait about this long between tokens, at most."""
    park_mb: int = -1
    """Megabytes of main memory, per model, for prefixes nobody uses now; -1: a quarter of what is free."""
    prefix_cache: bool = True
    """Whether a prompt takes over what was computed of earlier ones."""
    idle_cells: int = -1
    """Tokens of cache that prefixes nobody uses now may keep; -1: few on a processor, all on a GPU."""
    lookup: int = 8
    """How many tokens are guessed at a time from what was said before; 0: none."""
    numa: str = ""
    """How memory and threads lie on a machine of several NUMA nodes; empty: as they come."""
    split_mode: str = "layer"
    """How a model is spread over several GPUs."""
    tensor_split: tuple[float, ...] = ()
    """The share of each GPU; empty: by the memory they have free."""
    pull_rate: int = 0
    """Bytes per second that all pulls and pushes share; 0: no limit."""

    @property
    def loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def from_env(env: Mapping[str, str] | None = None) -> Settings:
    reader = _Reader(os.environ if env is None else env)
    host, port = split_host(reader.text("OLLAMA_HOST"))
    default = Settings()
    return Settings(
        host=host,
        port=port,
        models=reader.path("OLLAMA_MODELS") or default.models,
        keep_alive=reader.duration("OLLAMA_KEEP_ALIVE", default.keep_alive),
        load_timeout=reader.duration("OLLAMA_LOAD_TIMEOUT", default.load_timeout) or FOREVER,
        max_loaded_models=reader.number("OLLAMA_MAX_LOADED_MODELS", 0),
        # Who waits for a load waits, too: with no place at all, no model would ever be loaded.
        max_queue=reader.number("OLLAMA_MAX_QUEUE", default.max_queue) or 1,
        num_parallel=reader.number("OLLAMA_NUM_PARALLEL", 0),
        context_length=reader.number("OLLAMA_CONTEXT_LENGTH", 0),
        origins=reader.words("OLLAMA_ORIGINS"),
        debug=reader.flag("OLLAMA_DEBUG", False),
        log_requests=reader.flag("OLLAMA_DEBUG_LOG_REQUESTS", False),
        flash_attention=reader.flag("OLLAMA_FLASH_ATTENTION", True)
        if reader.text("OLLAMA_FLASH_ATTENTION")
        else None,
        kv_cache_type=reader.text("OLLAMA_KV_CACHE_TYPE") or "f16",
        gpu_overhead=reader.number("OLLAMA_GPU_OVERHEAD", 0),
        sched_spread=reader.flag("OLLAMA_SCHED_SPREAD", False),
        noprune=reader.flag("OLLAMA_NOPRUNE", False),
        go_template=reader.flag("OLLAMA_GO_TEMPLATE", True),
        keys_file=reader.path("LLM_ENGINE_KEYS_FILE"),
        tls_cert=reader.path("LLM_ENGINE_TLS_CERT"),
        tls_key=reader.path("LLM_ENGINE_TLS_KEY"),
        max_body=reader.number("LLM_ENGINE_MAX_BODY", default.max_body),
        preload=reader.words("LLM_ENGINE_PRELOAD"),
        pin=reader.words("LLM_ENGINE_PIN"),
        shutdown_grace=reader.duration("LLM_ENGINE_SHUTDOWN_GRACE", default.shutdown_grace),
        kv_cells=reader.number("LLM_ENGINE_KV_CELLS", 0),
        gap_ms=reader.number("LLM_ENGINE_GAP_MS", default.gap_ms),
        park_mb=reader.number("LLM_ENGINE_PARK_MB", default.park_mb),
        prefix_cache=reader.flag("LLM_ENGINE_PREFIX_CACHE", True),
        idle_cells=reader.number("LLM_ENGINE_IDLE_CELLS", default.idle_cells),
        lookup=min(reader.number("LLM_ENGINE_LOOKUP", default.lookup), MAX_LOOKUP),
        numa=reader.choice("LLM_ENGINE_NUMA", NUMA, default.numa),
        split_mode=reader.choice("LLM_ENGINE_SPLIT_MODE", SPLIT_MODES, default.split_mode),
        tensor_split=reader.shares("LLM_ENGINE_TENSOR_SPLIT"),
        pull_rate=reader.rate("LLM_ENGINE_PULL_RATE"),
    )


def split_host(value: str) -> tuple[str, int]:
    """`OLLAMA_HOST`: host, host:port, or a URL; an unusable port falls back to Ollama's."""
    text = value.strip()
    port = 11434
    if "://" in text:
        scheme, _, text = text.partition("://")
        port = {"http": 80, "https": 443}.get(scheme, 11434)
    text = text.split("/", 1)[0]
    if text.isdigit():
        return "127.0.0.1", int(text)
    try:
        parts = urlsplit(f"//{text}")
        host, given = parts.hostname or "", parts.port
    except ValueError:
        log.warning("invalid port in OLLAMA_HOST, using default", extra={"data": {"value": value}})
        host, given = text.rsplit(":", 1)[0], None
    return host.strip("[]") or "127.0.0.1", port if given is None else given


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env

    def text(self, name: str) -> str:
        return self.env.get(name, "").strip().strip("\"'").strip()

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        return Path(text).expanduser() if text else None

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.text(name).split(",") if word.strip())

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name)
        if not text:
            return default
        return text.lower() not in ("0", "f", "false")

    def number(self, name: str, default: int) -> int:
        text = self.text(name)
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0:
            log.warning(
                "invalid environment variable, using default", extra={"data": {"name": name, "value": text}}
            )
            return default
        return value

    def choice(self, name: str, allowed: Iterable[str], default: str) -> str:
        text = self.text(name).lower()
        if text and text not in allowed:
            why = f"{text!r} is not one of {', '.join(allowed)}"
            log.warning(
                "invalid environment variable, using default", extra={"data": {"name": name, "why": why}}
            )
            return default
        return text or default

    def shares(self, name: str) -> tuple[float, ...]:
        try:
            shares = tuple(float(word) for word in self.words(name))
        except ValueError:
            shares = (-1.0,)
        if any(not 0 <= share < float("inf") for share in shares) or (shares and not sum(shares)):
            why = f"{self.text(name)!r} is not a list of shares like 3,1"
            log.warning(
                "invalid environment variable, using default", extra={"data": {"name": name, "why": why}}
            )
            return ()
        return shares

    def rate(self, name: str) -> int:
        text = self.text(name)
        try:
            return parse_rate(text)
        except ValueError as error:
            log.warning(
                "invalid environment variable, using default",
                extra={"data": {"name": name, "why": str(error)}},
            )
            return 0

    def duration(self, name: str, default: float) -> float:
        text = self.text(name)
        if not text:
            return default
        try:
            seconds = float(int(text))
        except ValueError:
            try:
                seconds = parse_duration(text)
            except InvalidDuration:
                log.warning(
                    "invalid environment variable, using default",
                    extra={"data": {"name": name, "value": text}},
                )
                return default
        return FOREVER if seconds < 0 else seconds
