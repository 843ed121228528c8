"""Registries for tests: Debian's `docker-registry` as a real peer, and one of our own that misbehaves on
demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import bcrypt
import pytest

START_SECONDS = 20.0
USER, PASSWORD = "someone", "a secret"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def docker_registry(
    folder: Path,
    *,
    auth: bool = False,
    tls: tuple[Path, Path] | None = None,
    token: dict[str, str] | None = None,
) -> Iterator[str]:
    """A running registry; gives `host:port`. `token` configures the server that gives out bearer tokens."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.fail("docker-registry is not installed: apt-get install docker-registry")
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    http_config: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    if tls:
        http_config["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    config["http"] = http_config
    if auth:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token:
        config["auth"] = {"token": token}
    path = folder / "registry.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    log = (folder / "registry.log").open("wb")
    process = subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log)
    try:
        _wait(f"{'https' if tls else 'http'}://127.0.0.1:{port}/v2/", process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)
        log.close()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    context = ssl._create_unverified_context()
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5, context=context)
            return
        except urllib.error.HTTPError:
            return  # 401: it is there
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"docker-registry did not start: {process.poll()}")


@dataclass
class Fault:
    """What happens to one request for a blob."""

    status: int = 0
    """Answer so, without a body of use."""
    cut_after: int = -1
    """Close the connection after so many bytes."""
    stall_after: int = -1
    """Send nothing more after so many bytes, until the client has gone."""
    drip: bool = False
    """Send a byte at a time, twenty in a second, until the client has gone."""
    whole: bool = False
    """Answer 200 with the whole blob, whatever part was asked for."""
    flip: bool = False
    """Change the first byte."""
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""


@dataclass
class FaultyRegistry:
    """Serves one model under any name; `faults` are used up by requests for the weights, in their order."""

    blobs: dict[str, bytes]
    manifest: bytes
    faults: deque[Fault] = field(default_factory=deque)
    ranges: bool = True
    ignores_length: bool = False
    rate: int = 0
    """Bytes per second of each connection; 0: no limit."""
    sent: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    authorize: Callable[[str, dict[str, str]], tuple[int, dict[str, str], bytes] | None] | None = None
    url: str = ""

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def of(self, method: str, part: str) -> list[dict[str, str]]:
        return [headers for verb, path, headers in self.requests if verb == method and part in path]


@contextlib.contextmanager
def serving(registry: FaultyRegistry, tls: ssl.SSLContext | None = None) -> Iterator[FaultyRegistry]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            registry.requests.append((self.command, self.path, headers))
            if registry.authorize and (answer := registry.authorize(self.path, headers)):
                status, extra, body = answer
                self._whole(status, body, extra)
                return
            if match := re.search(r"/blobs/(sha256:[0-9a-f]{64})$", self.path):
                self._blob(match[1], headers)
            elif "/manifests/" in self.path:
                self._whole(200, registry.manifest, {})
            else:
                self._whole(404, b"{}", {})

        def _whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _blob(self, digest: str, headers: dict[str, str]) -> None:
            data = registry.blobs.get(digest)
            if data is None:
                self._whole(404, b"{}", {})
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
            # The question for the address, and layers of text, are not what faults are for.
            spared = len(data) < 100_000 or (asked is not None and asked[1] == asked[2] == "0")
            with lock:
                fault = registry.faults.popleft() if registry.faults and not spared else Fault()
            if fault.redirect:
                self._whole(307, b"", {"Location": fault.redirect})
                return
            if fault.status:
                self._whole(fault.status, b"fault", fault.headers)
                return
            if fault.whole or not registry.ranges:
                asked = None
            start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(data))
            body = data[start:end]
            if fault.flip:
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body)))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.end_headers()
            self._send(body, fault)

        def _send(self, body: bytes, fault: Fault) -> None:
            at, step = 0, 1 if fault.drip else 65536
            limits = [limit for limit in (fault.cut_after, fault.stall_after) if limit >= 0]
            until = min([len(body), *limits])
            while at < until:
                piece = body[at : min(at + step, until)]
                try:
                    self.wfile.write(piece)
                except OSError:
                    return
                at += len(piece)
                with lock:
                    registry.sent += len(piece)
                if fault.drip:
                    time.sleep(0.05)
                if registry.rate:
                    time.sleep(len(piece) / registry.rate)
            if fault.stall_after >= 0:
                # Wait until the client gives up: its end of the connection becomes readable.
                self.connection.settimeout(30)
                with contextlib.suppress(OSError):
                    self.connection.recv(1)
            if limits:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # clients that hang up are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        registry.url = registry.url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def model_registry(weights: bytes, *texts: tuple[str, bytes]) -> FaultyRegistry:
    """A registry with a model of these weights and layers of text."""
    config = b'{"model_format":"gguf","model_family":"llama"}\n'
    layers = [("model", weights), *texts]
    document = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": sha256(config),
            "size": len(config),
        },
        "layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": sha256(data), "size": len(data)}
            for kind, data in layers
        ],
    }
    blobs = {sha256(data): data for data in (config, *(data for _, data in layers))}
    return FaultyRegistry(blobs, json.dumps(document).encode())
