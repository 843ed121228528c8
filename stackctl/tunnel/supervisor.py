"""Keeps one tunnel up: connects, watches, reconnects with back-off, and stops only for what cannot pass by
itself.

States: connecting -> up -> reconnecting -> up …; `failed` when a permanent error says why; `stopped` on
request. The first connection is different: unless told to persist, an error there ends the start, because a
person is watching and can do something about it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import paramiko

from stackctl.errors import StackctlError
from stackctl.tunnel.auth import Ask
from stackctl.tunnel.connect import Connector
from stackctl.tunnel.destination import Destination
from stackctl.tunnel.dial import reason_of
from stackctl.tunnel.errors import Incompatible, PermanentTunnelError, TunnelError
from stackctl.tunnel.forwarder import Forward, Forwarder
from stackctl.tunnel.link import ParamikoLink
from stackctl.tunnel.master import MasterLink
from stackctl.tunnel.needs import openssh_needs
from stackctl.tunnel.openssh import OpensshLink
from stackctl.tunnel.socketlink import listens
from stackctl.tunnel.sshconfig import REVOKED, SshSettings

log = logging.getLogger("stackctl.tunnel")

AnyLink = ParamikoLink | OpensshLink | MasterLink
FIRST_DELAY, LONGEST_DELAY, STABLE_AFTER = 0.5, 60.0, 60.0


@dataclass(frozen=True)
class TunnelSpec:
    name: str
    destination: Destination
    forwards: tuple[Forward, ...]
    config_file: Path | None = None
    transport: str = "auto"  # auto | paramiko | openssh
    interval: float = 15.0
    hold: float = 0.0
    persist: bool = False


@dataclass
class Progress:
    """What `status` shows; written by the supervisor alone."""

    state: str = "connecting"
    since: datetime | None = None
    transport: str = ""
    detail: str = ""
    reconnects: int = 0
    last_error: str = ""
    last_error_at: datetime | None = None
    next_try_at: datetime | None = None
    notes: tuple[str, ...] = ()


def connector(spec: TunnelSpec, ask: Ask | None) -> Callable[[], AnyLink]:
    """How to make a link for this tunnel: in-process, or OpenSSH where the configuration needs it."""
    # It keeps the logins: nothing is asked twice.
    made = Connector(spec.destination, spec.config_file, ask, spec.name)
    known = [made.settings]  # a mistake in the configuration ends the start; later it may be mended

    def settings_now() -> tuple[SshSettings, list[str]]:
        settings = known.pop() if known else made.resolve_anew()
        return settings, openssh_needs(settings, spec.config_file) if spec.transport == "auto" else []

    def make() -> AnyLink:
        first = bool(known)
        try:
            settings, needs = settings_now()
        except StackctlError as error:
            if first or isinstance(error, TunnelError):
                raise
            raise TunnelError(error.what, fix=error.fix) from None
        if spec.transport == "paramiko" and any(need.startswith(REVOKED) for need in settings.needs_openssh):
            raise PermanentTunnelError(
                f"`transport: paramiko` cannot honour {REVOKED} of the ssh configuration",
                fix=f"set `transport: auto` for {spec.name}",
            )
        if spec.transport == "openssh" or needs:
            if needs:
                log.info("using OpenSSH: %s", ", ".join(needs))
            return _over_openssh(spec, settings)
        try:
            return ParamikoLink(made.connect(), spec.interval)
        except Incompatible as error:
            if spec.transport != "auto":
                raise
            log.info("using OpenSSH: %s", error.what)
            return _over_openssh(spec, settings)

    return make


def _over_openssh(spec: TunnelSpec, settings: SshSettings) -> AnyLink:
    """The connection that the user's ssh shares, if it does and it works; or else one of our own."""
    control = settings.control_path
    if control is not None and listens(control):
        try:
            return MasterLink(control, list(spec.forwards), spec.interval)
        except PermanentTunnelError:
            raise
        except TunnelError as error:
            log.warning("making a connection of our own: %s", error.what)
    return OpensshLink(spec.destination, settings, spec.config_file, list(spec.forwards), spec.interval)


@contextlib.contextmanager
def _as_tunnel_errors() -> Iterator[None]:
    """What goes wrong below while a link is made may pass: a full disk, too many files, a peer that went."""
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        log.debug("while connecting", exc_info=True)
        raise TunnelError(f"no connection could be made: {reason_of(error)}") from error


class Stopped(BaseException):
    """A request to stop that came in the middle of connecting: nothing there is worth waiting for."""


class Supervisor:
    def __init__(self, spec: TunnelSpec, forwarder: Forwarder, ask: Ask | None) -> None:
        self.spec = spec
        self.forwarder = forwarder
        self.progress = Progress()
        self._ask = ask
        self._stop = threading.Event()
        self._retry_now = threading.Event()
        self._link: AnyLink | None = None
        self._connecting = False
        self.on_change: Callable[[], None] = lambda: None

    def stop(self) -> None:
        self._stop.set()
        self._retry_now.set()

    def stop_by_signal(self) -> None:
        """In a signal handler of the thread that runs `run`: a connection that is being made is given up."""
        self.stop()
        if self._connecting:
            self._connecting = False
            raise Stopped

    @contextlib.contextmanager
    def _given_up_on_stop(self) -> Iterator[None]:
        self._connecting = True
        try:
            yield
        finally:
            self._connecting = False

    def retry_now(self) -> None:
        """A person (or the network) says that trying again is worth it."""
        self._retry_now.set()

    def run(self) -> None:
        """Until stopped. Raises what stopped it when that was not a request."""
        delay, first = FIRST_DELAY, True
        try:
            with self._given_up_on_stop():
                make = connector(self.spec, self._ask)
            while not self._stop.is_set():
                try:
                    up_for = self._one_life(make)
                    first, delay = False, FIRST_DELAY if up_for > STABLE_AFTER else delay
                except PermanentTunnelError:
                    raise
                except TunnelError as error:
                    if first and not self.spec.persist:
                        raise
                    self._note_error(error.what)
                if self._stop.is_set():
                    break
                self._pause(delay)
                delay = min(delay * 2, LONGEST_DELAY)
            self._change("stopped")
        except Stopped:
            self._change("stopped")
        except TunnelError as error:
            self._note_error(error.what)
            self._change("failed")
            raise
        finally:
            self.forwarder.use(None)
            if self._link is not None:
                self._link.close()

    def _one_life(self, make: Callable[[], AnyLink]) -> float:
        """Connect, serve until the link dies, tidy up; how long it was up."""
        with self._given_up_on_stop(), _as_tunnel_errors():
            link = self._link = make()
        try:
            with self._given_up_on_stop(), _as_tunnel_errors():
                notes = link.check_forwards(list(self.spec.forwards))
            self.progress.notes = tuple(notes)
            self.progress.transport, self.progress.detail = link.transport_name, link.detail
            self.forwarder.use(link)
            began = time.monotonic()
            self._change("up")
            for note in notes:
                log.warning("%s", note)
            reason = self._watch(link)
            if reason is None:
                return time.monotonic() - began
            self.forwarder.use(None)
            self.progress.reconnects += 1
            self._note_error(reason)
            self._change("reconnecting")
            return time.monotonic() - began
        finally:
            self.forwarder.use(None)
            self._link = None
            link.close()

    def _watch(self, link: AnyLink) -> str | None:
        step = min(1.0, self.spec.interval / 8)
        while not self._stop.wait(step):
            if (reason := link.trouble()) is not None:
                return reason
        return None

    def _pause(self, delay: float) -> None:
        wait = delay * random.uniform(0.5, 1.0)  # many laptops on one network must not return in step
        self.progress.next_try_at = datetime.fromtimestamp(time.time() + wait, UTC)
        self._change("reconnecting")
        self._retry_now.wait(wait)
        if not self._stop.is_set():
            self._retry_now.clear()
        self.progress.next_try_at = None

    def _change(self, state: str) -> None:
        if state != self.progress.state or state == "up":
            self.progress.state = state
            self.progress.since = datetime.now(UTC)
            log.info("%s", state)
        self.on_change()

    def _note_error(self, text: str) -> None:
        log.warning("%s", text)
        self.progress.last_error = text
        self.progress.last_error_at = datetime.now(UTC)
