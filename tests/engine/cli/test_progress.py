"""Progress at a real terminal: a bar for each layer, speed and time left, everything whole at the end."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_engine.models.create import create_from_gguf
from llm_engine.models.store import ModelStore

from tests.support.engine import EngineServer, start_engine
from tests.support.registries import free_port, model_registry, serving
from tests.support.terminal import Terminal

WEIGHTS = random.Random(5).randbytes(3_000_000)
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("progress")
    server = start_engine(folder / "models", folder / "log", HOME=str(folder))
    yield server
    server.stop()


def terminal(server: EngineServer, *arguments: str) -> Terminal:
    program = str(Path(sys.executable).with_name("llm-engine"))
    return Terminal([program, *arguments], {"OLLAMA_HOST": server.url}, columns=120)


def test_a_pull_draws_bars(server: EngineServer) -> None:
    with serving(model_registry(WEIGHTS, ("template", b"{{ .Prompt }}"))) as registry:
        registry.rate = 1_500_000
        with terminal(server, "pull", "--insecure", f"{registry.host}/some/model") as seen:
            seen.expect(HIDE)
            assert seen.ends() == 0
    bars = re.findall(r"pulling ([0-9a-f]{12}): +(\d+)% ▕(█*) *▏ +([^\x1b\n]*)", seen.seen)
    assert any(re.match(r"[\d.]+ [KM]B/3\.0 MB +[\d.]+ [KM]?B/s +\d+s", rest) for *_, rest in bars)
    percents = [int(percent) for digest, percent, _, _ in bars if digest == bars[0][0]]
    assert percents == sorted(percents) and percents[-1] == 100
    assert len({digest for digest, *_ in bars}) == 3
    last = seen.seen.rpartition("\x1b[?2026h")[2]
    assert "verifying sha256 digest" in last and last.rstrip().endswith(f"{SHOW}\x1b[?2026l")
    assert "success" in last


def test_an_error_leaves_the_cursor_visible(server: EngineServer) -> None:
    with terminal(server, "pull", f"http://127.0.0.1:{free_port()}/some/model") as seen:
        seen.expect("error: pull model manifest: insecure protocol http")
        seen.expect("fix: add --insecure")
        assert seen.ends() == 1
    assert seen.seen.rfind(SHOW) > seen.seen.rfind(HIDE)


def test_a_registry_that_is_not_there_is_told_at_once(server: EngineServer, chat_gguf: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    name = f"{host}/some/model"
    with terminal(server, "pull", "--insecure", name) as seen:
        seen.expect(f"error: pull model manifest: Cannot connect to host {host}", 10)
        assert seen.ends() == 1
    create_from_gguf(ModelStore(server.log.parent / "models"), name, chat_gguf)
    with terminal(server, "push", "--insecure", name) as seen:
        seen.expect(f"error: Cannot connect to host {host}", 10)
        assert seen.ends() == 1
