"""Rotating a secret: a new value, then a restart of what uses it, so that nothing runs on with the old
one."""

from __future__ import annotations

import json

import yaml

from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.runtime import audit
from stackctl.runtime.lock import stack_lock
from stackctl.runtime.secrets import SecretStore


def rotate(stack: Stack, *names: str) -> list[str]:
    """New values for all of them, then one restart; returns the services that were restarted."""
    with stack_lock(stack.name):
        for name in names:
            SecretStore(stack.name).rotate(name)
        running = {one.name for one in stack.runtime.status().services if one.state == "running"}
        users = sorted({user for name in names for user in users_of(stack, name)} & running)
        if users:
            stack.runtime.restart(users)
            gate.wait_healthy(stack, users)
        audit.record(stack.name, "secrets rotate", result="ok", secret=", ".join(names), restarted=users)
        return users


def users_of(stack: Stack, name: str) -> list[str]:
    current = stack.store.current()
    if current is None:
        return []
    text = current.file.read_text()
    document = yaml.safe_load(text) if current.runtime == "docker" else json.loads(text)
    return [service for service, body in document["services"].items() if name in body.get("secrets", [])]
