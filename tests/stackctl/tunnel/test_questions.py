"""What a person is asked and told during a login, at a real terminal and when nobody is there any more."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from paramiko.server import InteractiveQuery

from stackctl.tunnel.connect import Connector
from stackctl.tunnel.destination import parse
from stackctl.tunnel.errors import AuthError, TunnelError
from tests.support.sshd import keygen, public
from tests.support.terminal import Terminal

pytestmark = pytest.mark.peer
ROOT = Path(__file__).parents[3]


class Wants(paramiko.ServerInterface):
    """Takes the password `secret`, or a code after it has said what to do."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.tried: list[str] = []

    def get_banner(self) -> tuple[str, str]:
        return "Authorised \x1b[2Jusers only.\n", "en"

    def get_allowed_auths(self, username: str) -> str:
        return self.method

    def check_auth_password(self, username: str, password: str) -> int:
        self.tried.append(password)
        return 0 if password == "secret" else 2

    def check_auth_interactive(self, username: str, submethods: str) -> InteractiveQuery:
        query = InteractiveQuery("Two steps", "1. Push to phone")
        query.add_prompt("Passcode or option (1-3): ", True)
        return query

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        self.tried += responses
        return 0 if responses == ["1"] else 2


class Server:
    def __init__(self, folder: Path, method: str) -> None:
        self.wants = Wants(method)
        self.transports: list[paramiko.Transport] = []
        key = keygen(folder / "host")
        self._key = paramiko.Ed25519Key.from_private_key_file(str(key))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        (folder / "known").write_text(f"[127.0.0.1]:{port} {public(key)}\n")
        self.config = folder / "config"
        self.config.write_text(
            f"Host box\n HostName 127.0.0.1\n Port {port}\n User me\n UserKnownHostsFile {folder}/known\n"
            " IdentityFile none\n IdentitiesOnly yes\n"
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                transport = paramiko.Transport(sock)
                transport.add_server_key(self._key)
                self.transports.append(transport)
                transport.start_server(server=self.wants)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for transport in self.transports:
            transport.close()


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(tmp_path, request.param)
    yield made
    made.close()


wants = pytest.mark.parametrize("server", ["password"], indirect=True)
wants_code = pytest.mark.parametrize("server", ["keyboard-interactive"], indirect=True)


class Person:
    def __init__(self, answer: str = "secret") -> None:
        self.answer, self.asked, self.there = answer, 0, True

    def __call__(self, question: str, echo: bool) -> str:
        if not self.there:
            raise EOFError
        self.asked += 1
        return self.answer


@wants_code
def test_a_question_with_echo_is_answered_at_a_terminal(server: Server) -> None:
    code = (
        "from pathlib import Path; from stackctl.tunnel import auth, connect, destination\n"
        f"made = connect.Connector(destination.parse('box'), Path({str(server.config)!r}), auth.terminal())\n"
        "print('logged in', made.connect().transport.is_authenticated(), flush=True)\n"
        "import os; os._exit(0)"
    )
    with Terminal([sys.executable, "-c", code], {"PYTHONPATH": str(ROOT)}) as terminal:
        before = terminal.expect("Passcode or option (1-3): ")
        assert "Two steps" in before and "1. Push to phone" in before
        assert "Authorised [2Jusers only." in before, "the banner, without what would clear the screen"
        terminal.line("1")
        terminal.expect("logged in True")


@wants
def test_a_password_is_asked_for_once(server: Server) -> None:
    person = Person()
    connector = Connector(parse("box"), server.config, person)
    for _ in range(3):
        connector.connect().close()
        person.there = False  # as in the background
    assert (person.asked, server.wants.tried) == (1, ["secret"] * 3)


@wants
def test_a_password_that_is_not_taken_any_more_is_tried_once(server: Server) -> None:
    person = Person()
    connector = Connector(parse("box"), server.config, person)
    connector.connect().close()
    person.there = False
    server.wants.check_auth_password = lambda *_: 2  # type: ignore[method-assign]
    with pytest.raises(AuthError, match="tried password"):
        connector.connect()
    with pytest.raises(AuthError, match="wants a password from 'me', and there is no terminal"):
        connector.connect()


@wants
def test_a_connection_that_ends_during_the_login_does_not_cost_the_password(server: Server) -> None:
    connector = Connector(parse("box"), server.config, Person())
    connector.connect().close()

    def hang_up(username: str, password: str) -> int:
        server.transports[-1].sock.close()
        return 2

    taken = server.wants.check_auth_password
    server.wants.check_auth_password = hang_up  # type: ignore[method-assign]
    with pytest.raises(TunnelError) as caught:
        connector.connect()
    assert not isinstance(caught.value, AuthError)
    server.wants.check_auth_password = taken  # type: ignore[method-assign]
    connector.connect().close()


@wants_code
def test_a_code_that_nobody_can_type_ends_it_without_a_wrong_answer(server: Server) -> None:
    person = Person("1")
    connector = Connector(parse("box"), server.config, person)
    connector.connect().close()
    person.there = False
    with pytest.raises(AuthError, match=r"wants an answer to 'Passcode or option \(1-3\):' from 'me'"):
        connector.connect()
    assert server.wants.tried == ["1"]
