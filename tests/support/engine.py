"""A real `llm-engine serve` in a process of its own, with scripted models in a store of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llm_engine.models.config import ModelConfig
from llm_engine.models.manifests import CONFIG_TYPE, Layer, Manifest
from llm_engine.models.names import Name
from llm_engine.models.scripted import CHATML, build
from llm_engine.models.store import ModelStore

from tests.support import random_gguf
from tests.support.http import Client
from tests.support.models import AFTER_TOOL, ODD_CALL, SENTENCE, THOUGHT, TOOL_CALL, TOOL_TEMPLATE
from tests.support.rank_gguf import CrossEncoder

IM = ("<|im_start|>", "<|im_end|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
START_SECONDS = 100.0


def add_model(
    root: Path,
    name: str,
    gguf: Path,
    *,
    params: Mapping[str, Any] | None = None,
    projector: Path | None = None,
    **texts: str,
) -> None:
    """Stores a GGUF under a name, with parameters, a projector and layers of text (`template`, `system`)."""
    store = ModelStore(root)
    digest, size = store.blobs.add_file(gguf)
    layers = [Layer.of_kind("model", digest, size)]
    if projector is not None:
        layers.append(Layer.of_kind("projector", *store.blobs.add_file(projector)))
    documents = {**texts, **({"params": json.dumps(dict(params))} if params else {})}
    for kind, text in documents.items():
        blob, _ = store.blobs.add(text.encode())
        layers.append(Layer.of_kind(kind, blob, len(text.encode())))
    config = ModelConfig(
        model_format="gguf", model_family="llama", model_families=("llama",), model_type="1M", file_type="F16"
    ).encode()
    digest, _ = store.blobs.add(config)
    store.put(Name.parse(name), Manifest.make(Layer(CONFIG_TYPE, digest, len(config)), tuple(layers)))


def thinking_template() -> str:
    return CHATML.replace(
        "message['content']",
        "('<think>' + message['reasoning_content'] + '</think>' if message['reasoning_content'] else '')"
        " + message['content']",
    )


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model for each need: chat, tool, think, endless, embed, fim."""
    work = tmp_path_factory.mktemp("engine")
    root = work / "models"
    scripts: dict[str | None, str] = {None: SENTENCE}
    chat = build(work / "chat.gguf", scripts, chat_template=CHATML, control_tokens=IM)
    add_model(root, "chat", chat)
    add_model(root, "chat-alias", chat)
    add_model(root, "chat-params", chat, params={"num_predict": 2, "stop": ["lazy"]}, system="Be brief.")
    tools: dict[str | None, str] = {None: SENTENCE, "<|may_call|>": TOOL_CALL, "<|after_tool|>": AFTER_TOOL}
    add_model(
        root,
        "tool",
        build(work / "tool.gguf", tools, chat_template=TOOL_TEMPLATE, control_tokens=ROLES, width=256),
    )
    again = TOOL_CALL.replace("Paris", "Oslo").replace("3", "4")
    twice: dict[str | None, str] = {None: SENTENCE, "<|may_call|>": f"{TOOL_CALL}\n{again}"}
    add_model(
        root,
        "tool-twice",
        build(work / "twice.gguf", twice, chat_template=TOOL_TEMPLATE, control_tokens=ROLES, width=256),
    )
    odd: dict[str | None, str] = {None: SENTENCE, "<|may_call|>": ODD_CALL}
    add_model(
        root,
        "tool-odd",
        build(work / "odd.gguf", odd, chat_template=TOOL_TEMPLATE, control_tokens=ROLES, width=256),
    )
    thought: dict[str | None, str] = {None: THOUGHT}
    add_model(
        root,
        "think",
        build(work / "think.gguf", thought, chat_template=thinking_template(), control_tokens=IM, width=256),
    )
    may = ("<|may_call|>", "<|after_tool|>")
    both = TOOL_TEMPLATE + "{# </think> #}"
    add_model(
        root,
        "think-tool",
        build(work / "both.gguf", thought, chat_template=both, control_tokens=(*ROLES, *may), width=256),
    )
    endless = build(
        work / "endless.gguf",
        {None: SENTENCE + " "},
        chat_template=CHATML,
        endless=True,
        control_tokens=IM,
        width=256,
    )
    add_model(root, "endless", endless)
    add_model(root, "random", random_gguf.build(work / "random.gguf"))
    embedding = build(
        work / "embed.gguf", {None: ""}, name="embedding", embedding=True, width=384, context_length=2048
    )
    add_model(root, "embed", embedding)
    add_model(root, "rank", CrossEncoder().write(work / "rank.gguf"))
    fim = build(work / "fim.gguf", {None: "filled in"}, width=256)
    add_model(
        root,
        "fim",
        fim,
        template="{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}",
    )
    return root


@dataclass
class EngineServer:
    """A running engine."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def client(self) -> Client:
        return Client(self.url)

    def runners(self) -> list[int]:
        """Process ids of its runners."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            pids = [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []
        return [pid for pid in pids if b"llm_engine.runner" in _command(pid)]

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def start_engine(
    store: Path, log: Path, *arguments: str, program: Sequence[str] = (), **env: str
) -> EngineServer:
    """Starts an engine on a free port and waits until it answers."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "LLM_ENGINE_"))
    }
    program = program or (str(Path(sys.executable).with_name("llm-engine")),)
    command = [*program, "serve", "--models", str(store)]
    env.setdefault("OLLAMA_HOST", "127.0.0.1:0")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *arguments], env={**clean, **env}, stdout=file, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + START_SECONDS
    scheme = "https" if "--tls-cert" in arguments else "http"
    while time.monotonic() < deadline:
        match = re.search(r'"msg":"listening".*?"port":(\d+)', log.read_text())
        if match:
            server = EngineServer(f"{scheme}://127.0.0.1:{match[1]}", process, log)
            if scheme == "https" or server.client.alive():
                return server
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the engine did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def engine(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """One engine for all tests of a worker that leave it as they found it."""
    server = start_engine(model_store, tmp_path_factory.mktemp("log") / "engine.log")
    yield server
    server.stop()
