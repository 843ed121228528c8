"""What the user's ssh configuration says about a destination, as ssh itself reads it.

`ssh -G` prints the configuration that ssh would use: Include, Match (also `exec`), canonical names,
defaults of the system. Reading the files a second way would agree with it most of the time, which is the
worst kind of wrong. `%` tokens are still in its answer; they are expanded here.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shlex
import socket
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from stackctl.errors import ConfigError, PreflightError
from stackctl.tunnel.destination import Destination, parse

REVOKED = "RevokedHostKeys"


@dataclass(frozen=True)
class SshSettings:
    """One hop: where to connect, how to prove who we are, and whom to believe."""

    destination: Destination
    config_file: Path | None
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None  # a socket path; None: no agent
    proxy_jump: tuple[Destination, ...]
    proxy_command: str | None
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    strict: str  # yes | no | accept-new | ask
    host_key_alias: str | None
    hash_known_hosts: bool
    connect_timeout: float
    address_family: str  # any | inet | inet6
    bind_address: str | None
    control_path: Path | None  # where an ssh of the user shares its connection, if it does
    overrides: tuple[str, ...]  # `-o` for calls of ssh that must do what they are told and nothing else
    needs_openssh: tuple[str, ...]  # what the in-process transport cannot do, in the user's words
    entry: str = ""  # as a person names it; a jump host on the way is not named

    @property
    def alias(self) -> str:
        return self.destination.host

    @property
    def typed(self) -> str:
        """What to type after `ssh` to reach this very host."""
        words = [f"-F {shlex.quote(str(self.config_file))}"] if self.config_file else []
        if not self.entry and self.proxy_jump:
            words.append(f"-J {','.join(map(str, self.proxy_jump))}")
        return " ".join([*words, self.destination.words])

    @property
    def to_trust(self) -> str:
        """The command that shows the host's key and adds it after a yes."""
        if self.entry:
            return f"stackctl tunnel trust {shlex.quote(self.entry)}"
        return f"ssh -o StrictHostKeyChecking=ask {self.typed}"

    @property
    def known_hosts_name(self) -> str:
        name = self.host_key_alias or self.hostname
        return name if self.port == 22 or self.host_key_alias else f"[{name}]:{self.port}"

    @property
    def address(self) -> str:
        return f"[{self.hostname}]:{self.port}" if ":" in self.hostname else f"{self.hostname}:{self.port}"


def resolve(destination: Destination, config_file: Path | None = None) -> SshSettings:
    raw = _ask_ssh(destination, config_file)

    def one(key: str, default: str = "") -> str:
        return raw[key][-1] if key in raw else default

    host, port, user = one("hostname", destination.host), int(one("port", "22")), one("user")
    parse(f"{user}@[{host}]" if ":" in host else f"{user}@{host}")  # also when a config file made it so
    tokens = _tokens(destination.host, host, port, user, one("hostkeyalias"), one("proxyjump", "none"))

    def paths(values: list[str]) -> tuple[Path, ...]:
        return tuple(_path(value, tokens) for value in values if value.lower() != "none")

    jumps, command = one("proxyjump", "none"), one("proxycommand", "none")
    return SshSettings(
        destination=destination,
        config_file=config_file,
        hostname=host,
        port=port,
        user=user,
        identity_files=paths(raw["identityfile"]),
        certificate_files=paths(raw["certificatefile"]),
        identities_only=one("identitiesonly") == "yes",
        identity_agent=_agent(one("identityagent"), tokens),
        proxy_jump=() if jumps == "none" else tuple(parse(_expand(j, tokens)) for j in jumps.split(",")),
        proxy_command=None if command == "none" else _expand(command, tokens),
        user_known_hosts=paths(shlex.split(one("userknownhostsfile"))),
        global_known_hosts=paths(shlex.split(one("globalknownhostsfile"))),
        strict={"true": "yes", "false": "no", "off": "no"}.get(
            one("stricthostkeychecking"), one("stricthostkeychecking", "ask")
        ),
        host_key_alias=one("hostkeyalias") if one("hostkeyalias", "none") != "none" else None,
        hash_known_hosts=one("hashknownhosts") == "yes",
        connect_timeout=_seconds(one("connecttimeout"), 10.0),
        address_family=one("addressfamily", "any"),
        bind_address=one("bindaddress") or None,
        control_path=next(iter(paths([one("controlpath", "none")])), None),
        overrides=(f"StrictHostKeyChecking={_strict(raw)}", *_quiet(raw)),
        needs_openssh=tuple(_beyond_us(raw, tokens)),
    )


def _strict(raw: dict[str, list[str]]) -> str:
    """Never a question, and never a changed key: that is what `no` would let pass."""
    value = raw["stricthostkeychecking"][-1] if raw["stricthostkeychecking"] else "ask"
    return "accept-new" if value in ("accept-new", "no", "false", "off") else "yes"


def _quiet(raw: dict[str, list[str]]) -> list[str]:
    """Undo what a configuration may add to every ssh: a command, a terminal, a life in the background.

    What only newer versions of ssh know is undone where the configuration uses it.
    """
    found = ["PermitLocalCommand=no", "ForwardAgent=no", "ForwardX11=no", "Tunnel=no", "LogLevel=INFO"]
    for key, harmless in (
        ("remotecommand", "RemoteCommand=none"),
        ("sessiontype", "SessionType=default"),
        ("forkafterauthentication", "ForkAfterAuthentication=no"),
        ("stdinnull", "StdinNull=no"),
    ):
        if raw[key] and raw[key][-1] != harmless.partition("=")[2]:
            found.append(harmless)
    return found


def ssh_argv(destination: Destination, config_file: Path | None) -> list[str]:
    """How every call of ssh begins; the destination goes last, after `--`."""
    argv = ["ssh"]
    if config_file is not None:
        argv += ["-F", str(config_file)]
    if destination.user:
        argv += ["-l", destination.user]
    if destination.port:
        argv += ["-p", str(destination.port)]
    return argv


def _ask_ssh(destination: Destination, config_file: Path | None) -> dict[str, list[str]]:
    if config_file is not None and not config_file.is_file():
        raise ConfigError(f"cannot read the ssh configuration: {config_file} is not a file")
    argv = [*ssh_argv(destination, config_file), "-G", "--", destination.host]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise PreflightError(
            "cannot read the ssh configuration: there is no ssh program on this machine",
            fix="install OpenSSH's client (Debian: apt-get install openssh-client)",
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"ssh took more than 30 s to read its configuration for '{destination}'",
            fix="look for a `Match exec` in ~/.ssh/config that hangs",
        ) from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(
            f"ssh refuses its configuration for '{destination}': {reason}",
            fix=f"ssh -G -- {destination.host}",
        )
    raw: dict[str, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        raw[key.lower()].append(value)
    return raw


def home() -> Path:
    """ssh takes the home folder from the user database, not from $HOME, and so must whoever speaks for it."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def _tokens(original: str, host: str, port: int, user: str, alias: str, jump: str) -> dict[str, str]:
    me = pwd.getpwuid(os.getuid())
    local = socket.gethostname()
    jump = "" if jump == "none" else jump
    digest = hashlib.sha1(f"{local}{host}{port}{user}{jump}".encode()).hexdigest()  # as ssh defines %C
    return {
        "%": "%", "C": digest, "d": str(home()), "h": host, "i": str(os.getuid()), "j": jump,
        "k": alias or original, "L": local.split(".")[0], "l": local, "n": original, "p": str(port),
        "r": user, "u": me.pw_name,
    }  # fmt: skip


def _expand(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _path(text: str, tokens: dict[str, str]) -> Path:
    text = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], match[0]), text)
    if text == "~" or text.startswith("~/"):
        text = str(home()) + text[1:]
    return Path(_expand(text, tokens)).expanduser()


def _agent(value: str, tokens: dict[str, str]) -> str | None:
    if value.lower() == "none":
        return None
    if value in ("", "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK")
    if value.startswith("$"):
        return os.environ.get(value.lstrip("$").strip("{}"))
    return str(_path(value.strip('"'), tokens))


def _seconds(value: str, default: float) -> float:
    try:
        return float(value) or default
    except ValueError:
        return default


def _beyond_us(raw: dict[str, list[str]], tokens: dict[str, str]) -> list[str]:
    """Settings that only OpenSSH itself can honour."""

    def last(key: str) -> str:
        return raw[key][-1] if key in raw else "none"

    found = []
    security_keys = [
        value
        for value in raw["identityfile"]
        if (value.endswith("_sk") and _path(value, tokens).exists()) or _is_security_key(_path(value, tokens))
    ]
    if security_keys:
        found.append(f"IdentityFile {security_keys[0]} is a security key")
    cache = Path(f"/tmp/krb5cc_{os.getuid()}")
    if last("gssapiauthentication") == "yes" and ("KRB5CCNAME" in os.environ or cache.exists()):
        found.append("GSSAPIAuthentication with a Kerberos ticket")
    path = last("controlpath")
    if path != "none" and (last("controlmaster") in ("auto", "true", "yes") or _path(path, tokens).exists()):
        found.append(f"ControlPath {path}")
    for key, name in (
        ("knownhostscommand", "KnownHostsCommand"),
        ("pkcs11provider", "PKCS11Provider"),
        ("revokedhostkeys", REVOKED),
    ):
        if last(key) != "none":
            found.append(f"{name} {last(key)}")
    if last("proxyusefdpass") == "yes":
        found.append("ProxyUseFdpass yes")
    if last("verifyhostkeydns") in ("yes", "true"):
        found.append("VerifyHostKeyDNS yes")
    return found


def _is_security_key(path: Path) -> bool:
    try:
        return Path(f"{path}.pub").read_text().startswith("sk-")
    except (OSError, UnicodeDecodeError):
        return False
