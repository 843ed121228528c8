"""What `up` would do, found out without doing it."""

from __future__ import annotations

import difflib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stackctl.operations import lockfile, moving
from stackctl.operations.context import Stack
from stackctl.operations.facts import gather
from stackctl.render import Rendered, render


@dataclass(frozen=True)
class Plan:
    changes: bool
    diff: str
    services: dict[str, str]  # name -> create, recreate, keep, remove or start
    images: tuple[str, ...]  # `service: old -> new`


def would_run(stack: Stack) -> Rendered:
    """What `up` would run, as far as it is known without fetching: stack.lock says which images those are."""
    return render(stack.config, gather(stack.config, stack.choice.name, lockfile.read(stack.lock_file)))


def make_plan(stack: Stack) -> Plan:
    rendered = would_run(stack)
    current = stack.store.current()
    old = current.file.read_text() if current and current.runtime == rendered.runtime else ""
    diff = "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True),
            rendered.main.splitlines(keepends=True),
            f"generation {current.number}" if current else "nothing",
            "stack.yaml",
        )
    )
    services = _actions(stack, rendered)
    images = tuple(_images(stack, rendered))
    changes = bool(diff or images) or any(action != "keep" for action in services.values())
    return Plan(changes, diff, services, images)


def _actions(stack: Stack, rendered: Rendered) -> dict[str, str]:
    status = stack.runtime.status()
    wanted = _hashes(stack, rendered)
    running = {service.name: service for service in status.services if service.state != "absent"}
    actions = {}
    for name in rendered.services:
        service = running.get(name)
        if service is None:
            actions[name] = "create"
        elif service.config_hash != wanted.get(name):
            actions[name] = "recreate"
        else:
            actions[name] = "keep" if service.state == "running" else "start"
    actions |= {name: "remove" for name in running if name not in rendered.services}
    if (other := moving.left_behind(stack)) is not None:
        actions |= {f"{one.name} on {other[0].name}": "remove" for one in other[1]}
    return actions


def _hashes(stack: Stack, rendered: Rendered) -> dict[str, str]:
    if rendered.runtime == "local":
        return {name: body["hash"] for name, body in json.loads(rendered.main)["services"].items()}
    from stackctl.runtime.docker import compose

    with tempfile.TemporaryDirectory(prefix="stackctl-plan-") as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(rendered.main)
        return compose.hashes_of(stack.name, file)


def _images(stack: Stack, rendered: Rendered) -> list[str]:
    """By service, so that a tag that was changed in the stack file shows as well as one that moved; and what
    `up` would fetch first, of which nobody can tell yet what it will be."""
    if rendered.runtime != "docker":
        return []
    from stackctl.operations.up import missing_images
    from stackctl.runtime.docker.images import kind_of

    current = stack.store.current()
    docker = current if current is not None and current.runtime == "docker" else None
    references: dict[str, str] = docker.meta.get("images", {}) if docker else {}
    pins = docker.lock if docker else {}
    missing = missing_images(stack)
    lines = []
    for service, reference in rendered.images.items():
        before = references.get(service)
        old, new = pins.get(before or ""), rendered.pins.get(reference)
        if before is not None and (before, old) != (reference, new):
            name = reference if before == reference else f"{before} -> {reference}"
            lines.append(f"{service}: {name} ({_short(old)} -> {_short(new)})")
        if reference in missing:
            state = "behind its sources" if new else "not here"
            how = "build" if kind_of(reference) else "pull"
            lines.append(f"{service}: {reference} is {state}, up would {how} it")
    return lines


def _short(pin: str | None) -> str:
    """As `docker image ls` writes it."""
    return pin.rpartition(":")[2][:12] if pin else "not here yet"
