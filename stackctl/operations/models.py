"""Models of the engine as the stack file wants them: list, pull, remove, load, pin, and make the host
match."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stackctl.config import StackConfig
from stackctl.config.models import WantedModel
from stackctl.engine_api import EngineClient
from stackctl.errors import StackctlError, UsageError

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ModelLine:
    name: str
    size: int
    digest: str
    modified_at: str
    loaded: bool
    wanted: bool
    pinned: str | None


@dataclass(frozen=True)
class Step:
    """One thing that `sync` does."""

    action: Literal["pull", "load", "remove", "differs", "extra"]
    name: str
    why: str


def full_name(name: str) -> str:
    return WantedModel(name=name).full_name


def wanted(config: StackConfig) -> dict[str, WantedModel]:
    return {model.full_name: model for model in config.models}


def listing(client: EngineClient, config: StackConfig) -> list[ModelLine]:
    loaded = {str(model["name"]) for model in client.ps()}
    wants = wanted(config)
    lines = []
    for model in client.tags():
        name = str(model["name"])
        pinned = wants[name].digest if name in wants else None
        lines.append(
            ModelLine(
                name,
                int(model.get("size", 0)),
                str(model.get("digest", "")),
                str(model.get("modified_at", "")),
                name in loaded,
                name in wants,
                pinned,
            )
        )
    return lines


def same_digest(one: str, other: str) -> bool:
    """Digests are written with or without `sha256:`, and may be cut to twelve digits by people."""
    first, second = one.removeprefix("sha256:"), other.removeprefix("sha256:")
    return bool(first and second) and (first.startswith(second) or second.startswith(first))


def pull(client: EngineClient, name: str, progress: Progress) -> None:
    last: dict[str, Any] = {}
    for event in client.pull(name):
        progress(event)
        last = event
    if last.get("status") != "success":
        raise StackctlError(f"the pull of {name} ended without success: {last.get('status', 'nothing')}")


def refuse_wanted(config: StackConfig, name: str) -> None:
    if full_name(name) in wanted(config):
        raise UsageError(
            f"{name} is wanted by models: in the stack file, so sync would pull it again",
            fix="take it out of models:, or give --force",
        )


def load(client: EngineClient, name: str, keep_alive: str | int = -1) -> None:
    client.generate(name, "", keep_alive=keep_alive)


def unload(client: EngineClient, name: str) -> None:
    client.generate(name, "", keep_alive=0)


def sync_plan(client: EngineClient, config: StackConfig, *, prune: bool) -> list[Step]:
    there = {str(model["name"]): str(model.get("digest", "")) for model in client.tags()}
    loaded = {str(model["name"]) for model in client.ps()}
    steps = []
    for name, model in wanted(config).items():
        if name not in there:
            steps.append(Step("pull", name, "not here"))
        elif model.digest and not same_digest(there[name], model.digest):
            steps.append(Step("pull", name, f"is {there[name][:19]}, pinned to {model.digest[:19]}"))
        if model.resident and name not in loaded:
            steps.append(Step("load", name, "resident: true"))
    for name in there:
        if name not in wanted(config):
            steps.append(Step("remove" if prune else "extra", name, "not in models:"))
    return steps


def sync(client: EngineClient, config: StackConfig, *, prune: bool, progress: Progress) -> Iterator[Step]:
    """Do each step, then tell of it. A pinned model that the registry moved on is an error, not a
    surprise."""
    for step in sync_plan(client, config, prune=prune):
        if step.action == "pull":
            pull(client, step.name, progress)
            _check_pin(client, wanted(config)[step.name])
        elif step.action == "load":
            load(client, step.name)
        elif step.action == "remove":
            client.delete(step.name)
        yield step


def _check_pin(client: EngineClient, model: WantedModel) -> None:
    if model.digest is None:
        return
    digest = digest_of(client, model.full_name)
    if not same_digest(digest, model.digest):
        raise StackctlError(
            f"{model.full_name} is now {digest[:19]} in the registry, but pinned to {model.digest[:19]}",
            fix=f"look at what changed, then stackctl models pin {model.name}",
        )


def digest_of(client: EngineClient, name: str) -> str:
    for model in client.tags():
        if model["name"] == full_name(name):
            return str(model["digest"])
    raise UsageError(f"the engine has no model {name}", fix=f"stackctl models pull {name}")
