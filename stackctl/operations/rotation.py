"""Rotating a secret: a new value, then a restart of what uses it, so that nothing runs on with the old one.

What cannot be rotated is refused before anything is changed; when a service does not become healthy with the
new value, the old one is put back. Either way it is in the audit log.
"""

from __future__ import annotations

import json

import yaml

from stackctl.errors import RollbackError, StackctlError, UnhealthyError
from stackctl.operations import gate
from stackctl.operations.context import Stack
from stackctl.operations.secret_kinds import refusal
from stackctl.redact import Secret
from stackctl.runtime import audit
from stackctl.runtime.lock import stack_lock
from stackctl.runtime.secrets import SecretStore


def rotate(stack: Stack, *names: str) -> list[str]:
    """New values for all of them, then one restart; returns the services that were restarted."""
    secrets = ", ".join(names)
    with (
        stack_lock(stack.name),
        audit.recording(stack.name, "secrets rotate", secret=secrets, restarted=[]) as recorded,
    ):
        store = SecretStore(stack.name)
        old = to_rotate(stack, *names)
        running = {one.name for one in stack.runtime.status().services if one.state == "running"}
        users = sorted({user for name in names for user in users_of(stack, name)} & running)
        recorded["restarted"] = users
        _give(stack, store, old, users)
        return users


def to_rotate(stack: Stack, *names: str) -> dict[str, Secret]:
    """Their present values; raises when one of them cannot be rotated."""
    store = SecretStore(stack.name)
    found = {name: store.get(name) for name in names}
    for name in names:
        if refused := refusal(stack.config, name):
            raise refused
    return found


def _give(stack: Stack, store: SecretStore, old: dict[str, Secret], users: list[str]) -> None:
    try:
        for name in old:
            store.rotate(name)
        _restart(stack, users)
    except BaseException as error:
        for name, value in old.items():
            store.set(name, value.reveal())
        if not isinstance(error, StackctlError):
            # Interrupted: not waited for, but what runs must not have a value that its file has not.
            if users:
                stack.runtime.restart(users)
            raise
        stack.say(f"failed: {error.what}; putting the old value back")
        try:
            _restart(stack, users, patient=True)
        except StackctlError as second:
            raise RollbackError(
                f"{error.what}; and with the old value: {second.what}", fix="stackctl status"
            ) from error
        raise UnhealthyError(f"{error.what} (the old value is back)", fix=error.fix) from error


def _restart(stack: Stack, users: list[str], *, patient: bool = False) -> None:
    if users:
        stack.runtime.restart(users)
        gate.wait_healthy(stack, users, patient=patient)


def users_of(stack: Stack, name: str) -> list[str]:
    current = stack.store.current()
    if current is None:
        return []
    text = current.file.read_text()
    document = yaml.safe_load(text) if current.runtime == "docker" else json.loads(text)
    return [service for service, body in document["services"].items() if name in body.get("secrets", [])]
