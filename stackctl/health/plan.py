"""What health needs of stack.yaml, as plain frozen data.

Reading and validating stack.yaml costs more CPU than all checks together, so the validated result is kept:
a run whose stack file, overlay, environment references and stackctl version are what they were takes the
plan from there, and imports neither the validator nor the YAML parser. Both ways end in `decode`, so they
cannot differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stackctl import __version__, paths
from stackctl.health.state import write_atomically

if TYPE_CHECKING:
    from stackctl.config import StackConfig

SCHEMA = 1
_REFERENCE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Window:
    days: tuple[str, ...]
    start: str
    end: str
    timezone: str | None


@dataclass(frozen=True)
class Maintenance(Window):
    checks: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Flap:
    window: int
    changes: int
    daily: int
    hold: float


@dataclass(frozen=True)
class Override:
    enabled: bool
    fail_after: int | None
    ok_after: int | None
    timeout: float | None
    interval: float | None
    warn: float | None
    crit: float | None
    remedy: str | None


@dataclass(frozen=True)
class Command:
    id: str
    argv: tuple[str, ...]
    timeout: float
    interval: float
    needs: tuple[str, ...]
    explain: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Certificate:
    name: str
    file: str | None
    connect: str | None
    server_name: str | None


@dataclass(frozen=True)
class Ping:
    url: str
    start: bool
    exit_code: bool
    send_output: bool
    timeout: float


@dataclass(frozen=True)
class Remedies:
    enabled: bool
    min_gap: float
    max_per_day: int
    timeout: float


@dataclass(frozen=True)
class Health:
    fail_after: int
    ok_after: int
    recheck: float
    timeout: float
    reminder: float
    stale_after: float
    flap: Flap
    maintenance: tuple[Maintenance, ...]
    business_hours: Window | None
    tunnels: tuple[str, ...]
    disks: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    commands: tuple[Command, ...]
    checks: dict[str, Override]
    textfile: str | None
    ping: Ping | None
    remedies: Remedies


@dataclass(frozen=True)
class Channel:
    """Any channel; the keys that its type does not have are None."""

    type: str
    label: str
    min_severity: str
    timeout: float
    argv: tuple[str, ...] | None
    url: str | None
    method: str | None
    headers: dict[str, str] | None
    body: Any
    topic: str | None
    token_file: str | None
    host: str | None
    port: int | None
    security: str | None
    user: str | None
    password_file: str | None
    ca_file: str | None
    sender: str | None
    to: tuple[str, ...] | None


@dataclass(frozen=True)
class RateLimit:
    messages: int
    per: float


@dataclass(frozen=True)
class Notify:
    channels: tuple[Channel, ...]
    rate_limit: RateLimit
    include_output: bool


@dataclass(frozen=True)
class Service:
    name: str
    url: str
    port: int
    image: str


@dataclass(frozen=True)
class Model:
    name: str
    digest: str | None
    resident: bool


@dataclass(frozen=True)
class Plan:
    stack: str
    runtime: str
    expose: str
    gpu_mode: str
    require_gpu: bool
    stack_file: str
    data_path: str
    data_mount: str | None
    models_path: str
    backup_folders: tuple[str, ...]
    backup_elsewhere: bool
    services: tuple[Service, ...]
    models: tuple[Model, ...]
    health: Health
    notify: Notify

    @property
    def state_path(self) -> Path:
        return paths.state_dir(self.stack)

    def service(self, name: str) -> Service | None:
        return next((service for service in self.services if service.name == name), None)


T = TypeVar("T")


def load(stack_file: str | None, overlay: str | None = None) -> Plan:
    """The plan of this stack file, kept or made now; ConfigError when the file is bad."""
    path = Path(stack_file or os.environ.get("STACKCTL_FILE") or "stack.yaml")
    path = (path / "stack.yaml" if path.is_dir() else path).absolute()
    overlay = overlay or os.environ.get("STACKCTL_OVERLAY")
    extra = path.with_name(f"{path.stem}.{overlay}{path.suffix}") if overlay else None
    name = hashlib.sha256(f"{path}|{extra}".encode()).hexdigest()[:20]
    kept = paths.state_root() / "plans" / f"{name}.json"
    key = _key([path, *([extra] if extra else [])])
    found = _kept(kept, key)
    if found is None:
        from stackctl.config import load as load_config

        found = dump(load_config(stack_file, overlay), path)
        with contextlib.suppress(OSError):  # a full disk costs time here, and must not cost the look
            write_atomically(kept, json.dumps({"schema": SCHEMA, "key": key, "plan": found}), sync=False)
    return decode(Plan, found)


def _key(files: list[Path]) -> str:
    """Everything that the validated result depends on; "" when a file cannot be read."""
    seen = hashlib.sha256(f"{SCHEMA} {__version__} {os.environ.get('HOME')} {paths.state_root()}".encode())
    seen.update(f"{os.environ.get('XDG_DATA_HOME')}".encode())
    for path in files:
        try:
            text = path.read_bytes()
        except OSError:
            return ""
        seen.update(text)
        for name in sorted(set(_REFERENCE.findall(text.decode("utf-8", "replace")))):
            seen.update(f"{name}={os.environ.get(name)}\0".encode())
    return seen.hexdigest()


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if key and data["schema"] == SCHEMA and data["key"] == key:
            plan: dict[str, Any] = data["plan"]
            return plan
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no plan kept, or not one of ours: it is made anew
    return None


def dump(config: StackConfig, stack_file: Path) -> dict[str, Any]:
    """The plan as plain JSON values."""
    services = [
        {"name": name, "url": config.url(name), "port": service.port, "image": service.image}
        for name in type(config.services).model_fields
        if (service := getattr(config.services, name)).enabled
    ]
    notify = config.notify.model_dump(mode="json")
    for data, channel in zip(notify["channels"], config.notify.channels, strict=True):
        data["label"] = channel.label
    return {
        "stack": config.name,
        "runtime": config.runtime,
        "expose": config.expose,
        "gpu_mode": config.gpu.mode,
        "require_gpu": config.gpu.require_gpu,
        "stack_file": str(stack_file),
        "data_path": str(config.data_path),
        "backup_folders": [str(target.path) for target in config.backup.to if target.path],
        "backup_elsewhere": any(target.path is None for target in config.backup.to),
        "models_path": str(config.services.engine.models_dir or config.data_path / "models"),
        "data_mount": str(config.data_mount) if config.data_mount else None,
        "services": services,
        "models": [
            {"name": model.full_name, "digest": model.digest, "resident": model.resident}
            for model in config.models
        ],
        "health": config.health.model_dump(mode="json"),
        "notify": notify,
    }


def decode(kind: type[T], data: Any) -> T:
    """Plain values into frozen dataclasses; a key that is missing is None."""
    value: T = _value(kind, data)
    return value


def _value(kind: Any, data: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        rest = [item for item in typing.get_args(kind) if item is not type(None)]
        return None if data is None else _value(rest[0], data)
    if origin is tuple:
        return tuple(_value(typing.get_args(kind)[0], item) for item in data)
    if origin is dict:
        return {key: _value(typing.get_args(kind)[1], item) for key, item in data.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{spec.name: _value(hints[spec.name], data.get(spec.name)) for spec in fields(kind)})
    return data


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
