"""The error that ssh's last words stand for, with the way out of it.

ssh says what it has to say in lines for a person, often several, of which the last is seldom the telling one.
"""

from __future__ import annotations

import re
import shlex

from stackctl.tunnel import agent
from stackctl.tunnel.errors import AuthError, ForwardRefused, HostKeyError, PermanentTunnelError, TunnelError
from stackctl.tunnel.hostkeys import changed
from stackctl.tunnel.keyfiles import is_encrypted, public_blob_of
from stackctl.tunnel.sshconfig import SshSettings

_HOST_KEY = r"host key verification failed|identification has changed|no .* host key is known"
_LOGIN = r"permission denied|too many authentication failures|no more authentication methods"
_FORWARD = r"administratively prohibited|forwarding disabled|port forwarding failed"
_USE = r"bad configuration option|bad .* argument|invalid .* argument|not a valid"


def diagnose(lines: list[str], settings: SshSettings) -> TunnelError:
    """`lines` are what ssh said, oldest first."""
    said = [line.strip() for line in lines if line.strip() and not line.startswith("@@")]
    if _telling(said, _HOST_KEY):
        return _host_key(said, settings)
    if line := _telling(said, _LOGIN):
        return _login(line, settings)
    if line := _telling(said, _FORWARD):
        return ForwardRefused(
            f"ssh stopped: {line}",
            fix="allow it in the server's sshd_config: AllowTcpForwarding yes, and PermitOpen",
        )
    if line := _telling(said, _USE):
        return PermanentTunnelError(f"ssh stopped: {line}", fix=f"ssh -G {settings.typed}")
    return TunnelError(f"ssh stopped: {said[-1] if said else 'it said nothing'}")


def _telling(lines: list[str], pattern: str) -> str | None:
    return next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), None)


def _host_key(lines: list[str], settings: SshSettings) -> HostKeyError:
    text = "\n".join(lines)
    name = re.search(r"host key (?:is known )?for (\S+) (?:has changed|and you)", text, re.IGNORECASE)
    offending = re.search(r"^Offending (\S+) key in (.+:\d+)$", text, re.MULTILINE)
    now = re.search(r"the (\S+) key sent by the remote host is\s+(SHA256:\S+?)\.?$", text, re.MULTILINE)
    ours = name is not None and name[1] == settings.known_hosts_name
    if offending and now:
        where, kind = offending[2], offending[1]
        shown = f"{now[1]} {now[2]}"
        return changed(
            settings, name[1] if name else settings.known_hosts_name, shown, f"another {kind}", where
        )
    # What comes last is that the verification failed; why comes before.
    why = next((line for line in reversed(lines) if "verification failed" not in line.lower()), lines[-1])
    # A jump host's key is asked about by the ssh that goes over it.
    fix = settings.to_trust if ours else f"ssh -o StrictHostKeyChecking=ask {settings.typed}"
    return HostKeyError(f"ssh stopped: {why}", fix=fix)


def _login(line: str, settings: SshSettings) -> AuthError:
    if "too many" in line.lower():
        fix = (
            f"name the right key: IdentityFile and `IdentitiesOnly yes` for {settings.alias} in ~/.ssh/config"
        )
        return AuthError(f"ssh stopped: {line}", fix=fix)
    locked = [path for path in settings.identity_files if path.is_file() and is_encrypted(path)]
    known = agent.blobs(settings.identity_agent) if locked else set()
    for path in locked:
        if public_blob_of(path) not in known:
            # ssh may have had no terminal to ask on.
            return AuthError(
                f"ssh stopped: {line}; the key {path} is encrypted, and the agent does not have it",
                fix=f"ssh-add {shlex.quote(str(path))}",
            )
    return AuthError(f"ssh stopped: {line}", fix=f"ssh-copy-id {settings.typed}")
