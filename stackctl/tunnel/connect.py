"""From a destination to an authenticated session: proxies, handshake, host key, login. Nothing is guessed.

Every wait has a deadline. A jump host is a session of its own, and the next hop runs inside a forward of it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import paramiko

from stackctl.tunnel import knownhosts
from stackctl.tunnel.auth import Ask, Login
from stackctl.tunnel.contract import AnyRelay
from stackctl.tunnel.destination import Destination
from stackctl.tunnel.dial import Way, dial, reason_of, through_command
from stackctl.tunnel.errors import Incompatible, PermanentTunnelError, TunnelError
from stackctl.tunnel.hostkeys import check_host_key, host_key_types
from stackctl.tunnel.loop import Loop
from stackctl.tunnel.relay import Relay
from stackctl.tunnel.sshconfig import SshSettings, resolve
from stackctl.tunnel.transport import TunnelTransport
from stackctl.tunnel.windows import Windows

MAX_HOPS = 8


@dataclass
class Session:
    """An authenticated connection and whatever it runs over; `close` ends all of it."""

    transport: TunnelTransport
    settings: SshSettings
    under: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.transport.close()
        for close in reversed(self.under):
            with contextlib.suppress(Exception):
                close()


class Connector:
    """Connects to one destination, again and again; keeps what a person has typed."""

    def __init__(
        self, destination: Destination, config_file: Path | None, ask: Ask | None, name: str = ""
    ) -> None:
        self.destination = destination
        self.config_file = config_file
        self.ask = ask
        self.name = name or str(destination)  # what a person calls it, for commands that are shown
        self.settings = self.resolve_anew()
        self._logins: dict[str, Login] = {}

    def resolve_anew(self) -> SshSettings:
        """ssh's configuration can depend on the moment: on the network, a command's answer, an edit."""
        self.settings = replace(resolve(self.destination, self.config_file), entry=self.name)
        return self.settings

    def connect(self) -> Session:
        return self._session(self.settings, depth=0, seen=(self.settings.address,))

    def presented_key(self) -> tuple[str, bytes]:
        """The key that the server shows, unverified: for `trust`, which shows it to a person."""
        under: list[Callable[[], None]] = []
        try:
            way = self._way(self.settings, 0, (self.settings.address,), under)
            transport = self._handshake(way, self.settings, [])
            under.append(transport.close)
            key = transport.get_remote_server_key()
            return key.get_name(), key.asbytes()
        finally:
            for close in reversed(under):
                close()

    # --- one hop ---

    def _session(self, settings: SshSettings, depth: int, seen: tuple[str, ...]) -> Session:
        under: list[Callable[[], None]] = []
        try:
            way = self._way(settings, depth, seen, under)
            lines = knownhosts.read((*settings.user_known_hosts, *settings.global_known_hosts))
            transport = self._handshake(way, settings, lines)
            under.append(transport.close)
            check_host_key(settings, lines, transport.get_remote_server_key())
            transport.auth_timeout = 60.0
            login = self._logins.setdefault(settings.address, Login(settings, self.ask))
            login.settings = settings
            try:
                login.perform(transport)
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise TunnelError(
                    f"{settings.address} went away during the login: {reason_of(error)}"
                ) from None
        except BaseException:
            for close in reversed(under):
                with contextlib.suppress(Exception):
                    close()
            raise
        under.remove(transport.close)
        return Session(transport, settings, under)

    def _way(
        self, settings: SshSettings, depth: int, seen: tuple[str, ...], under: list[Callable[[], None]]
    ) -> Way:
        if settings.proxy_jump:
            return Way(self._through_jump(settings, depth, seen, under))
        if settings.proxy_command:
            return through_command(settings.proxy_command, under)
        return dial(settings)

    def _through_jump(
        self, settings: SshSettings, depth: int, seen: tuple[str, ...], under: list[Callable[[], None]]
    ) -> socket.socket:
        if depth >= MAX_HOPS:
            raise PermanentTunnelError(f"ProxyJump of {settings.alias} goes over more than {MAX_HOPS} hosts")
        *before, last = settings.proxy_jump
        jump = resolve(last, self.config_file)
        if before:
            # "a,b": b is reached through a, whatever b's own entry says.
            jump = _with_jump(jump, tuple(before))
        elif jump.address in seen:
            raise PermanentTunnelError(
                f"ProxyJump goes in a circle: {' -> '.join((*reversed(seen), jump.address))}",
                fix=f"write `ProxyJump none` for {last.host} in ~/.ssh/config",
            )
        session = self._session(jump, depth + 1, (*seen, jump.address))
        under.append(session.close)
        return _inside(session, (settings.hostname, settings.port), under)

    def _handshake(
        self, way: Way, settings: SshSettings, lines: list[knownhosts.HostKeyLine]
    ) -> TunnelTransport:
        transport = TunnelTransport(way.sock)
        transport.banner_timeout = settings.connect_timeout
        transport.handshake_timeout = settings.connect_timeout
        transport.prefer_host_keys(host_key_types(lines, settings.known_hosts_name))
        try:
            transport.start_client(timeout=settings.connect_timeout)
            if not transport.initial_kex_done:
                raise TunnelError(
                    f"{settings.address} did not finish the SSH handshake in {settings.connect_timeout:.0f} s"
                )
        except paramiko.ssh_exception.IncompatiblePeer as error:
            transport.close()
            way.sock.close()
            raise Incompatible(
                f"no SSH handshake with {settings.address}: {reason_of(error)}",
                fix="set `transport: openssh` for it, if ssh itself connects",
            ) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            transport.close()
            way.sock.close()
            why = reason_of(error) + way.last_words()
            raise TunnelError(f"no SSH handshake with {settings.address}: {why}") from None
        except BaseException:
            transport.close()
            way.sock.close()
            raise
        return transport


# --- through a jump host ---


class _HopTally:
    """Waits for one relay inside a jump host's session."""

    def __init__(self) -> None:
        self.bytes_up = self.bytes_down = 0
        self.answered = threading.Event()
        self.refusal = ""
        self.windows = Windows()

    def relay_started(self, relay: AnyRelay) -> None:
        pass

    def relay_opened(self, relay: AnyRelay) -> None:
        self.answered.set()

    def relay_ended(self, relay: AnyRelay) -> None:
        self.answered.set()

    def relay_refused(self, relay: AnyRelay, code: int, reason: str) -> None:
        self.refusal = reason or f"refused with code {code}"


def _inside(session: Session, target: tuple[str, int], under: list[Callable[[], None]]) -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop, tally = Loop("jump"), _HopTally()
    loop.start()
    under.append(loop.stop)
    relay = Relay(loop, theirs, tally)
    timeout = session.settings.connect_timeout
    try:
        session.transport.open_stream(target, ("127.0.0.1", 0), relay)
    except (OSError, EOFError, paramiko.SSHException):
        relay.lost()  # the session has ended since the login
    if not tally.answered.wait(timeout):
        tally.refusal = f"no answer in {timeout:.0f} s"
    if tally.refusal or relay.done:
        ours.close()
        via, to = session.settings.address, f"{target[0]}:{target[1]}"
        raise TunnelError(f"the jump host {via} cannot reach {to}: {tally.refusal or 'it went away'}")
    return ours


def _with_jump(settings: SshSettings, jumps: tuple[Destination, ...]) -> SshSettings:
    return replace(settings, proxy_jump=jumps, proxy_command=None)
