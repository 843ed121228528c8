"""Why a way to a host needs OpenSSH itself: the reasons of every hop, in the user's words.

A jump host counts as much as the last one: the in-process transport would have to log in there, too.
"""

from __future__ import annotations

from pathlib import Path

from stackctl.tunnel import knownhosts
from stackctl.tunnel.keyfiles import is_pkcs8
from stackctl.tunnel.sshconfig import SshSettings, resolve


def openssh_needs(settings: SshSettings, config_file: Path | None) -> list[str]:
    found = _of(settings)
    waiting, seen = list(settings.proxy_jump), set()
    while waiting:
        jump = waiting.pop(0)
        if jump in seen:
            continue  # a circle: connecting says so
        seen.add(jump)
        hop = resolve(jump, config_file)
        found += [f"{reason} (jump host {jump})" for reason in _of(hop)]
        waiting += hop.proxy_jump
    return found


def _of(settings: SshSettings) -> list[str]:
    return [*settings.needs_openssh, *_authorities(settings), *_keys_of_openssl(settings)]


def _keys_of_openssl(settings: SshSettings) -> list[str]:
    """paramiko knows OpenSSH's files and the older ones of one algorithm each."""
    found = [path for path in settings.identity_files if path.is_file() and is_pkcs8(path)]
    return [f"IdentityFile {path} is a PKCS#8 file" for path in found[:1]]


def _authorities(settings: SshSettings) -> list[str]:
    """paramiko asks for plain host keys alone, so a certificate of the host cannot be checked with it."""
    lines = knownhosts.read((*settings.user_known_hosts, *settings.global_known_hosts))
    # OpenSSH looks for an authority under the bare name, too, whatever the port.
    names = dict.fromkeys((settings.known_hosts_name, settings.host_key_alias or settings.hostname))
    mine = [line for name in names for line in knownhosts.lines_for(lines, name)]
    return [f"@cert-authority in {line.where}" for line in mine if line.marker == "@cert-authority"][:1]
