"""What a rendered stack must never say, and what it must, for containers and for local processes. Checked on
the parsed document, not on its text.

All findings are reported at once. A finding means that a template or a setting is unsafe: nothing is written
then.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from stackctl.config import StackConfig
from stackctl.errors import ConfigError
from stackctl.render.hardening import hardening_of
from stackctl.render.secrecy import form_of_secret, why_secret

PINNED = re.compile(r"^(sha256:[0-9a-f]{64}|.+@sha256:[0-9a-f]{64})$")

# Whoever may write to one of these starts a container with the whole host in it.
ENGINE_SOCKETS = ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock")


def enforce(document: Mapping[str, Any], config: StackConfig) -> None:
    _refuse(list(findings(document, config)))


def enforce_processes(document: Mapping[str, Any], config: StackConfig) -> None:
    _refuse(list(process_findings(document, config)))


def _refuse(problems: list[str]) -> None:
    if not problems:
        return
    secret = next((problem.split(":")[0] for problem in problems if _GIVE_AS_FILE in problem), None)
    fix = f"stackctl secrets set NAME, and add NAME to the secrets of services.{secret}" if secret else None
    fix = fix or "stackctl config show --origin, and change what is named here"
    raise ConfigError("the rendered stack breaks the policy", problems=problems, fix=fix)


def findings(document: Mapping[str, Any], config: StackConfig) -> Iterator[str]:
    services: Mapping[str, Any] = document["services"]
    for name, body in services.items():
        yield from _addresses(name, body, config)
        yield from _health(name, body, services)
        yield from _hardening(name, body)
        yield from _mounts(name, body)
        yield from _depends(name, body, services)
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


def _mounts(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    targets = [posixpath.normpath(str(volume.get("target"))) for volume in body.get("volumes", [])]
    targets += [posixpath.normpath(str(line).partition(":")[0]) for line in body.get("tmpfs", [])]
    targets += [f"/run/secrets/{secret}" for secret in body.get("secrets", [])]
    for target in sorted({one for one in targets if targets.count(one) > 1}):
        yield f"{name}: has two mounts at {target}, and one of them would be hidden"
    for volume in body.get("volumes", []):
        source = str(volume.get("source"))
        if held := socket_in(source):
            what = "" if posixpath.normpath(source) == held else f" with {source}"
            yield f"{name}: mounts {held}{what}, which is root on this host"


def socket_in(source: str) -> str | None:
    """The socket of a container engine that is there, or in the folder that is given."""
    path = PurePosixPath(posixpath.normpath(source.replace("$$", "$")))
    path = PurePosixPath("/run", *path.parts[3:]) if path.parts[:3] == ("/", "var", "run") else path
    if path.name in {PurePosixPath(one).name for one in ENGINE_SOCKETS}:
        return source
    found = next((one for one in ENGINE_SOCKETS if PurePosixPath(one).is_relative_to(path)), None)
    # Each user's rootless engine has its own: /run/user/1000/docker.sock.
    users = path.parts[:3] == ("/", "run", "user") and len(path.parts) <= 4
    return found or (f"{path}{'/*' * (4 - len(path.parts))}/docker.sock" if users else None)


def _depends(name: str, body: Mapping[str, Any], services: Mapping[str, Any]) -> Iterator[str]:
    for other in body.get("depends_on", {}):
        if other not in services:
            yield f"{name}: depends on {other}, which is not in this stack"


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
