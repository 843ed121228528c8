"""All hosts side by side, asked at once: a slow one is late alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from stackctl.errors import StackctlError
from stackctl.hosts import remote
from stackctl.tunnel.hosts import Host

#: A thread for each host, so that slow ones delay nobody; more hosts than this take turns.
AT_ONCE = 512


@dataclass(frozen=True)
class HostStatus:
    name: str
    destination: str
    state: str  # ok | unhealthy | unreachable
    summary: str
    status: dict[str, Any] | None


def ask_all(hosts: list[Host], timeout: float) -> Iterator[HostStatus]:
    """Each host's answer as it comes."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for done in as_completed([pool.submit(_ask, host, timeout) for host in hosts]):
            yield done.result()


def _ask(host: Host, timeout: float) -> HostStatus:
    where = str(host.destination)
    try:
        answer = remote.ask(host, [*remote.program(host), "status", "--json"], timeout=timeout)
    except StackctlError as error:
        return HostStatus(host.name, where, "unreachable", error.what, None)
    try:
        document = json.loads(answer.out)
        services = document["services"]
    except (ValueError, KeyError, TypeError):
        said = (answer.err.strip() or answer.out.strip() or f"exit {answer.code}").splitlines()[0]
        if answer.code == 127:
            said = f"there is no stackctl: stackctl host bootstrap {host.name}"
        return HostStatus(host.name, where, "unhealthy", said, None)
    well = [each for each in services if each["state"] == "running" and each["health"] in ("healthy", "none")]
    bad = [each["name"] for each in services if each not in well]
    summary = f"{len(well)} of {len(services)} services well" + (f"; not: {', '.join(bad)}" if bad else "")
    state = "ok" if services and not bad else "unhealthy"
    return HostStatus(host.name, where, state, summary, document)
