"""Models of the engine as the stack file wants them: list, pull, remove, load, pin, and make the host
match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stackctl.config import StackConfig
from stackctl.config.models import WantedModel, same_model
from stackctl.engine_api import EngineClient, EngineError, EngineUnreachable
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


def wanted(config: StackConfig) -> dict[str, WantedModel]:
    """By what `same_model` says of their names."""
    return {same_model(model.name): model for model in config.models}


def missing(lines: Iterable[ModelLine], config: StackConfig) -> list[str]:
    """Those that the stack file wants and the engine lacks."""
    there = {same_model(line.name) for line in lines}
    return [model.full_name for key, model in wanted(config).items() if key not in there]


def listing(client: EngineClient, config: StackConfig) -> list[ModelLine]:
    loaded = {str(model["name"]) for model in client.ps()}
    wants = wanted(config)
    lines = []
    for model in client.tags():
        name = str(model["name"])
        want = wants.get(same_model(name))
        lines.append(
            ModelLine(
                name,
                int(model.get("size", 0)),
                str(model.get("digest", "")),
                str(model.get("modified_at", "")),
                name in loaded,
                want is not None,
                want.digest if want else None,
            )
        )
    return lines


def same_digest(one: str, other: str) -> bool:
    """Digests are written with or without `sha256:`."""
    return one.removeprefix("sha256:") == other.removeprefix("sha256:")


def pull(client: EngineClient, name: str, progress: Progress) -> None:
    last: dict[str, Any] = {}
    for event in client.pull(name):
        progress(event)
        last = event
    if last.get("status") != "success":
        raise StackctlError(f"the pull of {name} ended without success: {last.get('status', 'nothing')}")


def pull_wanted(client: EngineClient, config: StackConfig, name: str, progress: Progress) -> None:
    """Pull a model; one that is pinned by its digest, so that a registry that moved on replaces nothing."""
    model = wanted(config).get(same_model(name))
    if model is None or model.digest is None:
        pull(client, name, progress)
        return
    try:
        pull(client, model.pinned_name, progress)
    except EngineUnreachable:
        raise
    except EngineError as error:
        raise StackctlError(
            f"{model.full_name} cannot be had as it is pinned ({model.digest[:19]}): {error.what}",
            fix=f"look at what changed, then take its digest out of models:, pull it, and "
            f"stackctl models pin {model.name}",
        ) from error


def refuse_wanted(config: StackConfig, name: str) -> None:
    if same_model(name) in wanted(config):
        raise UsageError(
            f"{name} is wanted by models: in the stack file, so sync would pull it again",
            fix="take it out of models:, or give --force",
        )


def load(client: EngineClient, name: str, keep_alive: str | int = -1) -> None:
    """An empty request of a kind that the model takes: one that embeds takes no prompt."""
    if "completion" in client.show(name).get("capabilities", ["completion"]):
        client.generate(name, "", keep_alive=keep_alive)
    else:
        client.post("/api/embed", {"model": name, "input": [], "keep_alive": keep_alive}, timeout=300)


def unload(client: EngineClient, name: str) -> None:
    load(client, name, keep_alive=0)


def sync_plan(client: EngineClient, config: StackConfig, *, prune: bool) -> list[Step]:
    there = {same_model(str(model["name"])): model for model in client.tags()}
    loaded = {same_model(str(model["name"])) for model in client.ps()}
    wants = wanted(config)
    steps = []
    for key, model in wants.items():
        if key not in there:
            steps.append(Step("pull", model.full_name, "not here"))
        elif model.digest and not same_digest(digest := str(there[key].get("digest", "")), model.digest):
            steps.append(Step("pull", model.full_name, f"is {digest[:19]}, pinned to {model.digest[:19]}"))
        if model.resident and key not in loaded:
            steps.append(Step("load", model.full_name, "resident: true"))
    for key, found in there.items():
        if key not in wants:
            steps.append(Step("remove" if prune else "extra", str(found["name"]), "not in models:"))
    return steps


def sync(client: EngineClient, config: StackConfig, *, prune: bool, progress: Progress) -> Iterator[Step]:
    """Do each step, then tell of it."""
    for step in sync_plan(client, config, prune=prune):
        if step.action == "pull":
            pull_wanted(client, config, step.name, progress)
        elif step.action == "load":
            load(client, step.name)
        elif step.action == "remove":
            client.delete(step.name)
        yield step


def digest_of(client: EngineClient, name: str) -> str:
    for model in client.tags():
        if same_model(str(model["name"])) == same_model(name):
            return str(model["digest"])
    raise UsageError(f"the engine has no model {name}", fix=f"stackctl models pull {name}")
