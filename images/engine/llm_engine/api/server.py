"""Runs the application: sockets, TLS, signals, and an end that leaves nothing behind.

On SIGTERM: nobody new is let in, running answers may finish within the grace period, those that do not get
an error event, every runner process is ended, then the server exits. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import shlex
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import uvicorn

from llm_engine import __version__, logs
from llm_engine.api.app import App, create_app
from llm_engine.api.connection import Connection
from llm_engine.api.keys import KeysFileError
from llm_engine.api.preload import preload
from llm_engine.api.watchers import watch_gpus, watch_loop
from llm_engine.errors import EngineError
from llm_engine.settings import Settings

log = logging.getLogger("llm_engine.server")
THREADS = 32


class ListenError(EngineError):
    """The address cannot be listened on."""


class ModelsFolderError(EngineError):
    """The model store is no folder, or not ours to read."""


class CertificateError(EngineError):
    """The TLS certificate or its key cannot be used."""


def serve(settings: Settings) -> None:
    """Blocks until the server has ended."""
    logs.setup(debug=settings.debug)
    check_models(settings.models)
    check_tls(settings)
    sock = listen(settings)
    host, port = sock.getsockname()[:2]
    log.info(
        "listening",
        extra={"data": {"host": host, "port": port, "version": __version__, "models": str(settings.models)}},
    )
    if not settings.loopback and settings.keys_file is None:
        log.warning(
            "THE ENGINE IS REACHABLE FROM OTHER MACHINES WITHOUT ANY KEY: "
            "set LLM_ENGINE_KEYS_FILE, or bind 127.0.0.1",
            extra={"data": {"host": host}},
        )
    try:
        asyncio.run(_main(settings, sock))
    except KeysFileError as error:
        raise EngineError(str(error), fix="llm-engine keys new NAME --file FILE") from error


def check_models(folder: Path) -> None:
    """Refuses a store that no request could use. One that is not there yet is fine, and one that is
    read-only: models are made and pulled by those who may."""
    try:
        os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        quoted = shlex.quote(str(folder))
        raise ModelsFolderError(
            f"models folder {folder}: {error.strerror}",
            fix="llm-engine serve --models FOLDER"
            if isinstance(error, NotADirectoryError)
            else f"sudo chown -R {os.geteuid()} {quoted}",
        ) from error


def check_tls(settings: Settings) -> None:
    """Before the port is taken: a server that cannot speak must not seem to listen."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key
        )
    except (ssl.SSLError, OSError) as error:
        # OpenSSL does not say which of the two it means.
        raise CertificateError(
            f"TLS certificate {settings.tls_cert} with key {settings.tls_key}: {error.strerror or error}",
            fix=f"openssl x509 -noout -subject -enddate -in {shlex.quote(str(settings.tls_cert))}",
        ) from error


def listen(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        text = error.strerror
        if error.errno == errno.EADDRINUSE:
            text = "address already in use" + (f" by {who}" if (who := _holder_of(settings.port)) else "")
        raise ListenError(
            f"listen tcp {settings.host}:{settings.port}: bind: {text}",
            fix="OLLAMA_HOST=127.0.0.1:PORT llm-engine serve",
        ) from error
    sock.setblocking(False)
    return sock


def _holder_of(port: int) -> str | None:
    """`name (pid 123)`, or None where that is hidden from us."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.pid and one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    except psutil.Error:
        pass
    return None


class QuietServer(uvicorn.Server):
    """uvicorn wakes ten times a second to see whether it should end. This one is told, and wakes once for the
    `Date` header.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), 1.0)


async def _main(settings: Settings, sock: socket.socket) -> None:
    # More than there are processors: many of them wait, for a disk or for a template that takes its time.
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="work")
    asyncio.get_running_loop().set_default_executor(threads)
    app = create_app(settings)
    # What is there now stays: to look at it again in each collection would keep the loop for tens of ms.
    gc.freeze()
    if app.engine.requests is not None:
        log.warning(
            "request bodies, prompts included, are written to a folder",
            extra={"data": {"folder": str(app.engine.requests.folder)}},
        )
    server = QuietServer(
        uvicorn.Config(
            app.asgi,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=75,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
    )
    # uvicorn's own handlers wait for clients for ever; ours end their streams first.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    async with _background(app):
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        stopping = asyncio.create_task(_until_signal())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        app.engine.draining = True
        log.info("stopping", extra={"data": {"requests": len(app.engine.running)}})
        closing = asyncio.create_task(app.engine.scheduler.close(settings.shutdown_grace))
        second = asyncio.create_task(_until_signal())
        await asyncio.wait({closing, second}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await app.engine.scheduler.close(0)
        second.cancel()
        await asyncio.gather(second, stopping, return_exceptions=True)
        server.leave()
        done, _ = await asyncio.wait({serving}, timeout=2)
        if not done:
            server.force_exit = True
        await serving
    log.info("stopped")


async def _until_signal() -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    await event.wait()


@contextlib.asynccontextmanager
async def _background(app: App) -> AsyncIterator[None]:
    """The watcher of the loop, and the models that are to be there from the start."""
    tasks = [
        asyncio.create_task(
            watch_loop(app.engine.metrics, lambda: bool(app.engine.running)), name="loop watch"
        ),
        asyncio.create_task(watch_gpus(app.engine), name="gpu watch"),
        asyncio.create_task(preload(app.engine), name="preload"),
        asyncio.create_task(_clean(app), name="clean"),
    ]
    app.engine.ready = True
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.engine.puller.close()


async def _clean(app: App) -> None:
    """What a crash left behind: unused blobs and temporary files."""
    try:
        removed = await asyncio.to_thread(app.engine.models.store.clean)
    except OSError as error:
        log.warning("the store cannot be cleaned", extra={"data": {"reason": str(error)}})
        return
    if removed:
        log.info("removed unused files", extra={"data": {"files": list(removed)}})
