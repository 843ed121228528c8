"""Believing a host's key, after a person has seen its fingerprint."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from stackctl.errors import StackctlError
from stackctl.tunnel import knownhosts
from stackctl.tunnel.connect import Connector
from stackctl.tunnel.errors import HostKeyError
from stackctl.tunnel.hostkeys import to_forget
from stackctl.tunnel.hosts import Host


@dataclass(frozen=True)
class Presented:
    name: str
    kind: str
    blob: bytes
    state: str  # as knownhosts.judge
    file: Path
    hashed: bool

    @property
    def fingerprint(self) -> str:
        return knownhosts.fingerprint(self.blob)


def look(host: Host) -> Presented:
    """What the host shows now, against what is known. Jump hosts on the way must be trusted already."""
    connector = Connector(host.destination, host.entry.ssh_config, None, host.name)
    settings = connector.settings
    kind, blob = connector.presented_key()
    name = settings.known_hosts_name
    lines = knownhosts.read((*settings.user_known_hosts, *settings.global_known_hosts))
    verdict = knownhosts.judge(lines, name, kind, blob)
    if verdict.state in ("changed", "revoked"):
        where = ", ".join(line.where for line in verdict.expected)
        raise HostKeyError(
            f"the host key of {name} is {verdict.state}: it shows {kind} {knownhosts.fingerprint(blob)}, "
            f"and {where} says otherwise; trust adds keys, it replaces none",
            fix=f"only if you know why: {to_forget(name, where)} && {settings.to_trust}",
        )
    if not settings.user_known_hosts:
        raise HostKeyError(f"ssh's configuration gives {host.name} no UserKnownHostsFile to write to")
    return Presented(name, kind, blob, verdict.state, settings.user_known_hosts[0], settings.hash_known_hosts)


def accept(key: Presented) -> None:
    line = knownhosts.line_text(key.name, key.kind, key.blob, hashed=key.hashed)
    try:
        knownhosts.append(key.file, line)
    except OSError as error:
        raise StackctlError(
            f"the key was not added: cannot write {key.file}: {(error.strerror or str(error)).lower()}",
            fix=f"ls -ld {shlex.quote(str(key.file.parent))}",
        ) from None
