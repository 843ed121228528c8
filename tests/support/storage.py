"""A registry that takes no bytes itself: each chunk is sent on to a storage, as by Ollama's own registry."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Uploads:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    chunks: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """By upload: what came to the storage, by its place in the file."""
    stored: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Requests to the storage, with their headers."""
    failures: int = 0
    """So many requests to the storage are answered 503 before one is taken."""
    mounts: set[str] = field(default_factory=set)
    host: str = ""


@contextlib.contextmanager
def redirecting() -> Iterator[Uploads]:
    uploads = Uploads()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": "0"}.items():
                self.send_header(key, value)
            self.end_headers()

        def do_HEAD(self) -> None:
            self.answer(200 if self.path.rsplit("/", 1)[1] in uploads.blobs else 404)

        def do_POST(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if query.get("mount", [""])[0] in uploads.mounts:
                uploads.blobs[query["mount"][0]] = b"mounted"
                self.answer(201, {"Location": "/v2/mounted"})
                return
            with lock:
                name = f"u{len(uploads.chunks)}"
                uploads.chunks[name] = {}
            self.answer(202, {"Docker-Upload-Location": f"http://{uploads.host}/v2/uploads/{name}?state=0"})

        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            name = urlsplit(self.path).path.rsplit("/", 1)[1]
            start = self.headers["Content-Range"].split("-")[0]
            self.answer(
                307,
                {
                    "Location": f"http://{uploads.host}/storage/{name}/{start}",
                    "Docker-Upload-Location": f"http://{uploads.host}/v2/uploads/{name}?state={start}x",
                },
            )

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            path = urlsplit(self.path)
            if path.path.startswith("/storage/"):
                self._to_storage(path.path, body)
            elif "/manifests/" in path.path:
                uploads.manifests[path.path] = body
                self.answer(201)
            else:
                self._commit(path.path.rsplit("/", 1)[1], parse_qs(path.query))

        def _to_storage(self, path: str, body: bytes) -> None:
            _, _, name, start = path.split("/")
            with lock:
                uploads.stored.append((path, dict(self.headers.items())))
                failed = uploads.failures > 0
                uploads.failures -= failed
            if failed:
                self.answer(503)
                return
            uploads.chunks[name][int(start)] = body
            self.answer(200)

        def _commit(self, name: str, query: dict[str, list[str]]) -> None:
            pieces = [piece for _, piece in sorted(uploads.chunks[name].items())]
            data = b"".join(pieces)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            # As object storages compute it for a file in several parts.
            sums = b"".join(hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces)
            etag = f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(pieces)}"
            if query["digest"] != [digest] or query.get("etag") != [etag]:
                self.answer(400)
                return
            uploads.blobs[digest] = data
            self.answer(201)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    uploads.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield uploads
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
