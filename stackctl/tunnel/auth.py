"""Logging in: which keys are offered, in which order, and what a person is asked.

Order, as ssh does it: keys of the agent that the configuration names, other keys of the agent (not with
IdentitiesOnly), key files with their certificates, encrypted key files (asks for the passphrase), then
keyboard-interactive and password; again for each further factor that the server wants. Questions are asked
on a terminal only. Loaded keys and a password that was taken are kept by the `Login`, so that a reconnect
asks nothing again; what is good for one login only (a one-time code) ends a tunnel that has no terminal.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko

from stackctl.tunnel import agent
from stackctl.tunnel.errors import AuthError, TunnelError
from stackctl.tunnel.keyfiles import certifies, is_encrypted, public_blob_of, read_key
from stackctl.tunnel.sshconfig import SshSettings

#: Asks one question on the terminal; None where there is none.
Ask = Callable[[str, bool], str]
#: Shows what the server has to say to a person.
Tell = Callable[[str], None]
_LOCKED = " (encrypted, and no terminal to ask for its passphrase)"
#: Factors that a server may ask for, one after the other.
MAX_STEPS = 5


class Encrypted(Exception):
    """A key file needs its passphrase."""


class Unanswered(Exception):
    """There was somebody to ask, and is not any more."""


def ask_on_terminal(question: str, echo: bool) -> str:
    if not echo:
        return getpass.getpass(question)
    # A terminal cannot be sought in, which one file for both ways would be.
    with open("/dev/tty", "w") as shown, open("/dev/tty") as typed:
        shown.write(question)
        shown.flush()
        line = typed.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def tell_on_terminal(text: str) -> None:
    with contextlib.suppress(OSError), open("/dev/tty", "w") as shown:
        shown.write(text.rstrip() + "\n")


def terminal() -> Ask | None:
    """How to ask a person, if one is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
    return ask_on_terminal


class Login:
    """The ways into one host, tried again at each reconnect without asking twice."""

    def __init__(self, settings: SshSettings, ask: Ask | None, tell: Tell = tell_on_terminal) -> None:
        self.settings = settings
        self.ask = ask
        self.tell = tell
        self._keys: dict[Path, Any] = {}
        self._agents: list[Any] = []  # that are open
        self._known_password: str | None = None
        self._doubted = False  # the last login with it ended in the middle
        self._banner = ""  # of this login, until it was shown
        self._tried: list[str] = []
        self._remaining: list[str] = []  # what the server wants beside the factor that it took last

    def perform(self, transport: Any) -> None:
        try:
            self._perform(transport)
        finally:
            while self._agents:
                self._agents.pop()._close()

    def _perform(self, transport: Any) -> None:
        self._tried = []
        user = self.settings.user
        allowed = self._offered(transport, user)
        self._banner = (transport.get_banner() or b"").decode(errors="replace")
        for _ in range(MAX_STEPS):
            if transport.is_authenticated() or self._step(transport, user, allowed):
                return
            if not self._remaining:
                break
            allowed = self._remaining  # one of several factors is done
        raise self._refusal(allowed)

    def _step(self, transport: Any, user: str, allowed: list[str]) -> bool:
        """Try each way that the server accepts, up to the first that it takes; whether that was all of it."""
        self._remaining = []
        ways = [("publickey", self._with_keys)]
        if self.ask is not None:
            ways += [("keyboard-interactive", self._interactive), ("password", self._password)]
        for name, way in ways:
            if name in allowed and way(transport, user):
                return not self._remaining
        return False

    def _offered(self, transport: Any, user: str) -> list[str]:
        try:
            transport.auth_none(user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.SSHException as error:
            raise TunnelError(f"the server ended the login of '{user}': {error}") from None
        return []

    # --- keys ---

    def _with_keys(self, transport: Any, user: str) -> bool:
        for label, load in self._candidates():
            try:
                key = load()
            except Encrypted:
                self._tried.append(label + _LOCKED)
                continue
            except (OSError, paramiko.SSHException, ValueError) as error:
                self._tried.append(f"{label} (cannot be used: {error})")
                continue
            if key is None:
                continue
            self._tried.append(label)
            try:
                self._remaining = list(transport.auth_publickey(user, key))
            except paramiko.AuthenticationException:
                if not transport.is_active():
                    raise self._too_many() from None
                continue
            except (paramiko.SSHException, EOFError):
                if not transport.is_active():
                    raise self._too_many() from None
                continue
            return True
        return False

    def _candidates(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        files = [path for path in self.settings.identity_files if path.is_file()]
        # A key may be in the agent alone: then its .pub file is what names it.
        named = {public_blob_of(path) for path in self.settings.identity_files} - {None}
        agent_keys = self._agent_keys()
        chosen = [key for key in agent_keys if key.blob in named]
        others = [] if self.settings.identities_only else [key for key in agent_keys if key.blob not in named]
        certificates = {*self.settings.certificate_files, *(Path(f"{path}-cert.pub") for path in files)}
        for certificate in sorted(certificates):
            for path in files:
                if certificate.is_file() and certifies(certificate, path):
                    yield f"{path} with {certificate.name}", _later(self._load, path, certificate)
        for key in [*chosen, *others]:
            yield f"agent key {key.comment or key.name}", _later(lambda key: key, key)
        in_agent = {key.blob for key in agent_keys}
        plain = [path for path in files if public_blob_of(path) not in in_agent]
        for path in plain:
            if not is_encrypted(path):
                yield str(path), _later(self._load, path, None)
        for path in plain:
            if is_encrypted(path):
                yield str(path), _later(self._load, path, None)

    def _agent_keys(self) -> list[Any]:
        found = agent.connect(self.settings.identity_agent)
        if found is None:
            return []
        self._agents.append(found)
        return list(found.get_keys())

    def _load(self, path: Path, certificate: Path | None) -> Any:
        key = self._keys.get(path)
        if key is None:
            try:
                key = read_key(path, None)
            except paramiko.PasswordRequiredException:
                try:
                    passphrase = self._asked(f"Passphrase for {path}: ", False)
                except Unanswered:
                    raise Encrypted from None
                key = read_key(path, passphrase)
            self._keys[path] = key
        key.public_blob = None
        if certificate is not None:
            key.load_certificate(str(certificate))
        return key

    # --- questions ---

    def _asked(self, question: str, echo: bool) -> str:
        if self.ask is None:
            raise Unanswered
        if self._banner:
            self.tell(_plain(self._banner))
            self._banner = ""
        try:
            return self.ask(_plain(question), echo)
        except (OSError, EOFError, termios.error):
            raise Unanswered(_plain(question).strip()) from None

    def _interactive(self, transport: Any, user: str) -> bool:
        def answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            """On the transport's thread, whose errors end the connection: no wrong answer is sent."""
            for text in (title, instructions):
                if text.strip():
                    self.tell(_plain(text))
            return [self._asked(prompt, echo) for prompt, echo in prompts]

        self._tried.append("keyboard-interactive")
        try:
            self._remaining = list(transport.auth_interactive(user, answer))
        except Unanswered as error:
            raise self._nobody(f"an answer to '{error}'") from None
        except paramiko.SSHException:
            return False
        return True

    def _password(self, transport: Any, user: str) -> bool:
        self._tried.append("password")
        known, self._known_password = self._known_password, None
        try:
            said = known or self._asked(f"{user}@{self.settings.alias}'s password: ", False)
        except Unanswered:
            raise self._nobody("a password") from None
        try:
            self._remaining = list(transport.auth_password(user, said, fallback=False))
        except paramiko.SSHException:
            if known and not self._doubted and not transport.is_active():
                # The network, or a server that hangs up on a wrong password: one more try will tell.
                self._known_password, self._doubted = known, True
                raise
            return False
        self._known_password, self._doubted = said, False
        return True

    # --- reasons ---

    def _refusal(self, allowed: list[str]) -> AuthError:
        tried = ", ".join(self._tried) or "nothing: no key file, no agent key"
        locked = [word.removesuffix(_LOCKED) for word in self._tried if word.endswith(_LOCKED)]
        return AuthError(
            f"cannot log in to {self.settings.address} as '{self.settings.user}': "
            f"the server accepts {', '.join(allowed) or 'nothing'}; tried {tried}",
            fix=f"ssh-add {shlex.quote(locked[0])}" if locked else f"ssh-copy-id {self.settings.typed}",
        )

    def _nobody(self, wanted: str) -> AuthError:
        return AuthError(
            f"{self.settings.address} wants {wanted} from '{self.settings.user}', "
            "and there is no terminal to ask on (any more)",
            fix=f"ssh-copy-id {self.settings.typed}",
        )

    def _too_many(self) -> AuthError:
        return AuthError(
            f"{self.settings.address} ended the login of '{self.settings.user}' "
            f"after {len(self._tried)} keys ({', '.join(self._tried)})",
            fix=f"name the right key: IdentityFile and `IdentitiesOnly yes` for {self.settings.alias} "
            "in ~/.ssh/config",
        )


def _plain(text: str) -> str:
    """A server's words without what would command the terminal."""
    return "".join(each for each in text if each.isprintable() or each in "\n\t")


def _later(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)
