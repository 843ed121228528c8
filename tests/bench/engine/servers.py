"""Starting and stopping the two servers under test, with the same context, sequences and threads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from tests.bench.engine import client

CELLS, SEQUENCES, THREADS, LONGEST = 16384, 8, 2, 8192
PATIENCE = 120.0


class Launch(Protocol):
    """How a server is started: its name, its command and environment for a port."""

    @property
    def name(self) -> str: ...

    @property
    def ready(self) -> str:
        """The path that answers with 200 once it serves."""

    def command(self, port: int) -> tuple[list[str], dict[str, str]]: ...


@dataclass(frozen=True)
class LlamaServer:
    program: Path
    model: Path
    embedding: bool = False
    name: str = "llama-server"
    ready: str = "/health"

    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        words = [str(self.program), "--model", str(self.model), "--ctx-size", str(CELLS)]
        words += ["--parallel", str(SEQUENCES), "--threads", str(THREADS), "--port", str(port)]
        # One cache for all sequences, as in our engine: a 4,000-token prompt would not fit an eighth of it.
        words += ["--kv-unified", "--no-webui"]
        if self.embedding:
            words += ["--embeddings", "--ubatch-size", "2048"]
        return words, {"LD_LIBRARY_PATH": str(self.program.parent)}


@dataclass(frozen=True)
class Engine:
    store: Path
    name: str = "engine"
    ready: str = "/api/version"

    def command(self, port: int) -> tuple[list[str], dict[str, str]]:
        program = Path(sys.executable).with_name("llm-engine")
        words = [str(program), "serve", "--port", str(port), "--models", str(self.store)]
        return words, {
            "OLLAMA_CONTEXT_LENGTH": str(LONGEST),
            "OLLAMA_NUM_PARALLEL": str(SEQUENCES),
            "LLM_ENGINE_KV_CELLS": str(CELLS),
        }

    def create(self, model: Path) -> None:
        """Put the model into the store, through the engine's own front door, unless it is there just so."""
        recipe = f"FROM {model}\nPARAMETER num_thread {THREADS}\n"
        done = self.store / "Modelfile"
        if done.exists() and done.read_text() == recipe:
            return
        file = model.with_suffix(".Modelfile")
        file.write_text(recipe)
        port = free_port()
        words, env = self.command(port)
        with subprocess.Popen(words, env={**os.environ, **env}, stderr=subprocess.DEVNULL) as server:
            try:
                asyncio.run(wait_ready(port, self.ready, server))
                host = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}"}
                subprocess.run([words[0], "create", "bench", "-f", str(file)], env=host, check=True)
            finally:
                server.terminate()
        done.write_text(recipe)


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def wait_ready(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise client.BadReply(f"the server ended with {process.returncode}")
        try:
            status, _ = await client.fetch(port, "GET", path)
        except OSError:
            status = 0
        if status == 200:
            return
        await asyncio.sleep(0.02)
    raise client.BadReply(f"no answer from port {port} within {PATIENCE:.0f} s")


class Running:
    """A server that is up; a context manager."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self.launch = launch
        self.port = free_port()
        words, env = launch.command(self.port)
        self.started = time.perf_counter()
        self._log = log.open("wb")
        # An installed engine has its bytecode beside it; a shell that forbids writing any must not hide that.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(words, env={**inherited, **env}, stdout=self._log, stderr=self._log)

    async def ready(self) -> None:
        await wait_ready(self.port, self.launch.ready, self.process)

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """Resident megabytes of the whole tree; pages that processes share are counted once."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 1e6

    async def idle(self, seconds: float = 3.0) -> float:
        """Processor time while nothing is asked, in per cent of one core."""
        before = self._cpu()
        await asyncio.sleep(seconds)
        return 100 * (self._cpu() - before) / seconds

    def _cpu(self) -> float:
        return sum(times.user + times.system for times in (p.cpu_times() for p in self.tree()))

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
