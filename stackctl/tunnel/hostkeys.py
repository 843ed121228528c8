"""Whether the key that a host shows is believed, and what a person is told who has to decide."""

from __future__ import annotations

import logging
import shlex
from typing import Any

from stackctl.tunnel import knownhosts
from stackctl.tunnel.errors import HostKeyError
from stackctl.tunnel.sshconfig import SshSettings

log = logging.getLogger("stackctl.tunnel")

_OFFERED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
#: An RSA host key signs with SHA-2 under these names.
_SIGNATURES = {"ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"]}


def host_key_types(lines: list[knownhosts.HostKeyLine], name: str) -> list[str]:
    """Types that known_hosts has for this host come first, so that a known key is the one presented."""
    known = [kind for kind in knownhosts.known_types(lines, name) if kind in _OFFERED]
    ordered = known + [kind for kind in _OFFERED if kind not in known]
    return [name for kind in ordered for name in _SIGNATURES.get(kind, [kind])]


def check_host_key(settings: SshSettings, lines: list[knownhosts.HostKeyLine], key: Any) -> None:
    name, kind, blob = settings.known_hosts_name, key.get_name(), key.asbytes()
    verdict = knownhosts.judge(lines, name, kind, blob)
    shown = f"{kind} {knownhosts.fingerprint(blob)}"
    where = ", ".join(line.where for line in verdict.expected)
    if verdict.state == "known":
        return
    if verdict.state == "revoked":
        raise HostKeyError(f"the host key of {name} is revoked ({shown}; {where})")
    if verdict.state == "changed":
        known = ", ".join(f"{line.kind} {knownhosts.fingerprint(line.blob)}" for line in verdict.expected)
        raise changed(settings, name, shown, known, where)
    if settings.strict in ("no", "accept-new"):
        if settings.user_known_hosts:
            _remember(settings, knownhosts.line_text(name, kind, blob, hashed=settings.hash_known_hosts))
        return
    raise HostKeyError(
        f"the host key of {name} is not known: {shown}",
        fix=f"compare the fingerprint with the host's, then: {settings.to_trust}",
    )


def changed(settings: SshSettings, name: str, shown: str, known: str, where: str) -> HostKeyError:
    """`where` is FILE:LINE of what was known, or several."""
    return HostKeyError(
        f"THE HOST KEY OF {name} HAS CHANGED: it is now {shown}, known is {known} ({where}). "
        "Either the host was installed anew or someone is between you and it",
        fix=f"only if you know why: {to_forget(name, where)} && {settings.to_trust}",
    )


def to_forget(name: str, where: str) -> str:
    file = where.split(", ")[0].rpartition(":")[0]
    return f"ssh-keygen -R '{name}' -f {shlex.quote(file)}"


def _remember(settings: SshSettings, line: str) -> None:
    """As ssh does: a file that cannot be written is no reason not to connect."""
    file = settings.user_known_hosts[0]
    try:
        knownhosts.append(file, line)
    except OSError as error:
        log.warning("the host key could not be added to %s: %s", file, error.strerror)
