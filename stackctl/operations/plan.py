"""What `up` would do, found out without doing it."""

from __future__ import annotations

import difflib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stackctl.operations import lockfile
from stackctl.operations.context import Stack
from stackctl.operations.facts import gather
from stackctl.render import Rendered, render


@dataclass(frozen=True)
class Plan:
    changes: bool
    diff: str
    services: dict[str, str]  # name -> create, recreate, keep, remove or start
    images: tuple[str, ...]  # `service: old -> new`


def make_plan(stack: Stack) -> Plan:
    rendered = render(stack.config, gather(stack.config, stack.choice.name, lockfile.read(stack.lock_file)))
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
    changes = bool(diff) or any(action != "keep" for action in services.values())
    return Plan(changes, diff, services, tuple(_images(stack, rendered)))


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
    return actions | {name: "remove" for name in running if name not in rendered.services}


def _hashes(stack: Stack, rendered: Rendered) -> dict[str, str]:
    if rendered.runtime == "local":
        return {name: body["hash"] for name, body in json.loads(rendered.main)["services"].items()}
    from stackctl.runtime.docker import compose

    with tempfile.TemporaryDirectory(prefix="stackctl-plan-") as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(rendered.main)
        return compose.hashes_of(stack.name, file)


def _images(stack: Stack, rendered: Rendered) -> list[str]:
    current = stack.store.current()
    before = dict(current.lock) if current else {}
    lines = []
    for service, reference in rendered.images.items():
        new, old = rendered.pins.get(reference, ""), before.get(reference)
        if rendered.runtime == "docker" and old is not None and new != old:
            lines.append(f"{service}: {reference} {old[-12:]} -> {new[-12:] or 'not here yet'}")
    return lines
