"""The proxy as real Caddy runs it: TLS, the key, client certificates, and answers that stream through
unbuffered."""

from __future__ import annotations

import functools
import http.client
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from stackctl.config import StackConfig
from stackctl.errors import UnhealthyError
from stackctl.operations.front import proxy_answers
from stackctl.redact import Secret
from stackctl.render.proxy import caddyfile
from tests.support.gates import need_program
from tests.support.stacks import free_port, wait_for

pytestmark = pytest.mark.peer
KEY = "a-key-of-this-test"


class Upstream(BaseHTTPRequestHandler):
    """Sends half an answer, and the rest only when the test has seen the first half."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()
    seen: list[dict[str, str]] = []  # noqa: RUF012 - filled by the server's threads

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst\n\r\n")
        self.wfile.flush()
        if self.path == "/stream":
            assert self.go_on.wait(20)
        self.wfile.write(b"5\r\nlast\n\r\n0\r\n\r\n")


@pytest.fixture
def upstream() -> Iterator[int]:
    Upstream.go_on.clear()
    Upstream.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@contextmanager
def caddy(folder: Path, config: StackConfig) -> Iterator[int]:
    program = need_program("caddy")
    file = folder / "Caddyfile"
    file.write_text(caddyfile(config, local=True))
    log = (folder / "caddy.log").open("wb")
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "STACKCTL_PROXY_KEY": KEY}
    process = subprocess.Popen(
        [program, "run", "--adapter", "caddyfile", "--config", str(file)],
        env=environment,
        stdout=log,
        stderr=log,
    )
    port = config.services.proxy.port
    try:
        wait_for(lambda: process.poll() is not None or _open(port), "caddy listens", 60)
        assert process.poll() is None, (folder / "caddy.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def config(upstream: int, **proxy: Any) -> StackConfig:
    services = {
        "engine": {"port": upstream},
        "proxy": {"enabled": True, "port": free_port(), "webui_port": free_port(), **proxy},
    }
    return StackConfig.model_validate({"name": "t", "services": services})


def get(
    port: int, context: ssl.SSLContext, path: str = "/", host: str = "localhost", **headers: str
) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=20)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    with (tmp_path / "cert.pem").open("wb") as file:
        for blob in made.cert_chain_pems:
            file.write(blob.bytes())
    return {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_key_opens_and_streams_pass_unbuffered(
    tmp_path: Path, upstream: int, authority: trustme.CA, certificate: dict[str, str]
) -> None:
    context = trusting(authority)
    with caddy(tmp_path, config(upstream, tls=certificate)) as port:
        refused = get(port, context)
        assert refused.status == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
        assert b"a key is needed" in refused.read()
        assert get(port, context, Authorization="Bearer wrong").status == 401
        assert not Upstream.seen
        assert get(port, context, **{"X-Api-Key": KEY}).status == 200
        answer = get(port, context, "/stream", Authorization=f"Bearer {KEY}")
        assert answer.readline() == b"first\n"  # while the upstream still holds the rest
        Upstream.go_on.set()
        assert answer.readline() == b"last\n"


def test_client_certificates(
    tmp_path: Path, upstream: int, authority: trustme.CA, certificate: dict[str, str]
) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    wanted = config(upstream, tls=certificate, auth="mtls", client_ca=str(tmp_path / "clients.pem"))
    with caddy(tmp_path, wanted) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(port, trusting(authority)).read()
        stranger = trusting(authority)
        trustme.CA().issue_cert("stranger@example.org").configure_cert(stranger)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(port, stranger).read()
        known = trusting(authority)
        clients.issue_cert("friend@example.org").configure_cert(known)
        assert get(port, known).status == 200


def test_a_local_authority_of_its_own(tmp_path: Path, upstream: int) -> None:
    with caddy(tmp_path, config(upstream)) as port:
        root = tmp_path / "caddy/pki/authorities/local/root.crt"
        wait_for(root.exists, "the local CA")
        context = ssl.create_default_context(cafile=str(root))
        for host in ("localhost", "127.0.0.1"):
            wait_for(functools.partial(_answers, port, context, host), f"a certificate for {host}")


def _answers(port: int, context: ssl.SSLContext, host: str) -> bool:
    try:
        return get(port, context, host=host, Authorization=f"Bearer {KEY}").status == 200
    except (ssl.SSLError, OSError):
        return False


@pytest.mark.parametrize("names", [["localhost"], ["llm.example.org", "10.1.2.3"], ["*.example.org"]])
def test_the_gate_asks_in_the_name_that_is_shown(tmp_path: Path, upstream: int, names: list[str]) -> None:
    wanted = config(upstream, hostnames=names)
    shown = wanted.urls()["proxy"]
    assert shown.startswith(f"https://{names[0].replace('*', 'any')}:")
    with caddy(tmp_path, wanted):
        proxy_answers(wanted, Secret(KEY))
        with pytest.raises(UnhealthyError, match=f"{shown}/api/version: status 401"):
            proxy_answers(wanted, Secret("another-key"), within=0)
    with pytest.raises(UnhealthyError, match="efused"):
        proxy_answers(wanted, Secret(KEY), within=0)


def test_the_gate_tells_what_is_behind_from_the_proxy_itself(
    tmp_path: Path, certificate: dict[str, str]
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "clients.pem")
    gone = config(free_port(), tls=certificate)
    with caddy(tmp_path, gone), pytest.raises(UnhealthyError, match=r"to engine at .*: status 502"):
        proxy_answers(gone, Secret(KEY), within=0)
    closed = config(free_port(), tls=certificate, auth="mtls", client_ca=str(tmp_path / "clients.pem"))
    with caddy(tmp_path, closed):
        proxy_answers(closed, None)  # it asks us for a certificate: it stands


def test_a_name_that_would_be_more_than_a_name_is_refused() -> None:
    for name in ("localhost {", "a, :80", "", "http://x", "a:1", "x\ny"):
        with pytest.raises(ValueError, match="hostnames"):
            config(1, hostnames=[name])
