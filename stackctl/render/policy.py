"""What a rendered stack must never say, and what it must, for containers and for local processes. Checked on
the parsed document, not on its text.

All findings are reported at once. A finding means that a template or a setting is unsafe: nothing is written
then.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackctl.config import StackConfig
from stackctl.errors import ConfigError
from stackctl.render.hardening import hardening_of
from stackctl.render.secrecy import form_of_secret, why_secret

PINNED = re.compile(r"^(sha256:[0-9a-f]{64}|.+@sha256:[0-9a-f]{64})$")


def enforce(document: Mapping[str, Any], config: StackConfig) -> None:
    _refuse(list(findings(document, config)))


def enforce_processes(document: Mapping[str, Any], config: StackConfig) -> None:
    _refuse(list(process_findings(document, config)))


def _refuse(problems: list[str]) -> None:
    if not problems:
        return
    secret = next((problem.split(":")[0] for problem in problems if _GIVE_AS_FILE in problem), None)
    fix = f"stackctl secrets set NAME, and add NAME to the secrets of services.{secret}" if secret else None
    raise ConfigError("the rendered stack breaks the policy", problems=problems, fix=fix)


def findings(document: Mapping[str, Any], config: StackConfig) -> Iterator[str]:
    services: Mapping[str, Any] = document["services"]
    for name, body in services.items():
        yield from _addresses(name, body, config)
        yield from _health(name, body, services)
        yield from _hardening(name, body)
        yield from _limits(name, body, config)
        yield from _secrets(name, body)


def process_findings(document: Mapping[str, Any], config: StackConfig) -> Iterator[str]:
    """What of it can hold without a container: addresses, health, limits, and no secret in clear."""
    for name, body in document["services"].items():
        yield from _addresses(name, body, config)
        if not body.get("health"):
            yield f"{name}: has no health check, so a crash loop would look healthy"
        limits = body.get("limits", {})
        if not limits.get("pids"):
            yield f"{name}: has no limit of processes"
        service = config.services.enabled().get(name)
        if not limits.get("memory") and not (service and service.limits.memory == 0):
            yield f"{name}: has no memory limit, and the stack file does not say limits: {{memory: none}}"
        yield from _secrets(name, body)


def unpinned(document: Mapping[str, Any]) -> list[str]:
    """Services whose image is a movable name. Refused by `up`, which pins; shown by `render`, which may not
    know."""
    return [name for name, body in document["services"].items() if not PINNED.match(body["image"])]


def _addresses(name: str, body: Mapping[str, Any], config: StackConfig) -> Iterator[str]:
    if body.get("network_mode"):
        yield f"{name}: network_mode {body['network_mode']} bypasses loopback publishing"
    for port in body.get("ports", []):
        address = port.get("host_ip") if isinstance(port, dict) else None
        if not address:
            yield f"{name}: port {port} has no host address, so it would be on all of them"
        elif config.expose != "lan" and not ipaddress.ip_address(address).is_loopback:
            yield f"{name}: published on {address}, which is not loopback, without expose: lan"


def _health(name: str, body: Mapping[str, Any], services: Mapping[str, Any]) -> Iterator[str]:
    if body.get("restart") in (None, "no"):
        # A one-shot must be waited for by another, or `up` takes its end for a failure.
        waits = [other.get("depends_on", {}).get(name, {}) for other in services.values()]
        if not any(one.get("condition") == "service_completed_successfully" for one in waits):
            yield f"{name}: runs once, but no service waits for its completion"
        return
    test = body.get("healthcheck", {}).get("test")
    if not test or test == ["NONE"]:
        yield f"{name}: has no healthcheck, so a crash loop would look healthy"


def _hardening(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    for rule, value in hardening_of(name).items():
        if body.get(rule) != value:
            yield f"{name}: {rule} is {body.get(rule)!r}, not {value!r}, and no exception says why"
    if body.get("privileged"):
        yield f"{name}: privileged"
    for volume in body.get("volumes", []):
        if "docker.sock" in str(volume.get("source")):
            yield f"{name}: mounts Docker's socket, which is root on this host"


def _limits(name: str, body: Mapping[str, Any], config: StackConfig) -> Iterator[str]:
    if not body.get("pids_limit"):
        yield f"{name}: has no pids_limit"
    service = config.services.enabled().get(name)
    if not body.get("mem_limit") and not (service and service.limits.memory == 0):
        yield f"{name}: has no mem_limit, and the stack file does not say limits: {{memory: none}}"


_GIVE_AS_FILE = "; give it as a file, by the secrets of the service"


def _secrets(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    for variable, value in body.get("environment", {}).items():
        if why := why_secret(variable, str(value)):
            yield f"{name}: environment variable {variable} {why}{_GIVE_AS_FILE}"
    health = body.get("healthcheck", {}).get("test") or body.get("health", {}).get("argv") or []
    for where, words in (
        ("health check", health),
        ("command", body.get("command") or body.get("argv") or []),
    ):
        for word in [words] if isinstance(words, str) else words:
            if form := form_of_secret(str(word)):
                yield f"{name}: its {where} holds {form}, which everyone on this host can read{_GIVE_AS_FILE}"
