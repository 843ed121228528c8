"""`llm-engine run` at a real terminal: what a person sees, types, interrupts, saves and finds again."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llm_engine.cli.attachments import begins_with_path, with_media
from llm_engine.models.create import create_from_gguf
from llm_engine.models.store import ModelStore

from tests.support.engine import EngineServer, start_engine
from tests.support.models import SENTENCE
from tests.support.terminal import CTRL_C, CTRL_D, CTRL_G, Terminal

HINT = "Send a message (/? for help)"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

Talk = Callable[..., Terminal]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, chat_gguf: Path, endless_gguf: Path
) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("talk")
    store = ModelStore(folder / "models")
    create_from_gguf(store, "hello", chat_gguf, params={"num_ctx": 512})
    create_from_gguf(store, "endless", endless_gguf)
    server = start_engine(folder / "models", folder / "log", HOME=str(folder))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store(server: EngineServer) -> ModelStore:
    return ModelStore(server.log.parent / "models")


@pytest.fixture
def talk(server: EngineServer, tmp_path: Path) -> Talk:
    def talk(model: str, *arguments: str, **env: str) -> Terminal:
        program = str(Path(sys.executable).with_name("llm-engine"))
        command = [program, "run", model, *arguments]
        return Terminal(command, {"OLLAMA_HOST": server.url, "HOME": str(tmp_path), **env})

    return talk


def history(tmp_path: Path) -> list[str]:
    return (tmp_path / ".ollama" / "history").read_text().splitlines()


def test_a_question_and_the_end(talk: Talk, tmp_path: Path) -> None:
    with talk("hello") as terminal:
        before = terminal.expect(HINT)
        assert before.endswith(">>> \x1b[38;5;245m")
        terminal.line("hi there")
        terminal.expect(SENTENCE)
        terminal.expect(HINT)
        assert history(tmp_path) == ["hi there"]
        assert (tmp_path / ".ollama" / "history").stat().st_mode & 0o777 == 0o600
        terminal.type(CTRL_D)
        assert terminal.ends() == 0


def test_ctrl_c_stops_the_answer_and_drops_a_line(talk: Talk) -> None:
    with talk("endless") as terminal:
        terminal.expect(HINT)
        terminal.line("go")
        terminal.expect("quick brown")
        terminal.type(CTRL_C)
        terminal.expect(HINT)
        terminal.type(CTRL_C)
        terminal.expect("Use Ctrl + d or /bye to exit.")
        terminal.expect(HINT)
        terminal.type("half a line")
        terminal.expect("half a line")
        terminal.type(CTRL_C)
        assert "Use Ctrl" not in terminal.expect(HINT)
        terminal.line("again")  # the model is free, and the line that was dropped is not sent with this one
        terminal.expect("quick brown")
        terminal.type(CTRL_C)
        terminal.expect(HINT)
        terminal.line("/bye")
        assert terminal.ends() == 0


def test_commands(talk: Talk, store: ModelStore) -> None:
    with talk("hello") as terminal:

        def says(line: str, *texts: str) -> None:
            terminal.expect(HINT)
            terminal.line(line)
            for text in texts:
                terminal.expect(text)

        says("/?", "Available Commands:", "/save <model>")
        says("/? shortcuts", "Ctrl + c            Stop the model from responding")
        says("/nothing", "Unknown command '/nothing'. Type /? for help")
        says("/list", "NAME", "ID", "SIZE", "MODIFIED", "hello:latest")
        says("/show info", "architecture        llama")
        says("/show system", "No system message was specified for this model.")
        says("/show parameters", "Model defined parameters:", "num_ctx")
        says("/set parameter top_k 3", "Set parameter 'top_k' to '3'")
        says("/set parameter top_k much", "Couldn't set parameter: invalid int value [much]")
        says("/show parameters", "User defined parameters:", "top_k")
        says('/set system """two', "... ")
        terminal.line('lines"""')
        terminal.expect("Set system message.")
        says('"""one', 'Use """ to end multi-line input')
        terminal.line('two"""')
        terminal.expect(SENTENCE)
        says("/save talked", "Created new model 'talked'")
        says("/clear", "Cleared session context")
        says("/load nowhere", "model 'nowhere:latest' not found")
        says("/load talked", "Loading model 'talked'", ">>> one", "two", SENTENCE)
        says("more", SENTENCE)
        says("/save talked", "Created new model 'talked'")
        says("/bye")
        assert terminal.ends() == 0
    kept = store.resolve("talked")
    assert (kept.system, kept.params["top_k"]) == ("two\nlines", 3)
    answer = {"role": "assistant", "content": SENTENCE}
    assert kept.messages == [
        {"role": "user", "content": "one\ntwo"},
        answer,
        {"role": "user", "content": "more"},
        answer,
    ]


def test_a_paste_of_several_lines_is_one_message(talk: Talk, store: ModelStore) -> None:
    with talk("hello") as terminal:
        assert "\x1b[?2004h" in terminal.expect(HINT)  # the terminal is asked to mark pastes
        terminal.type("\x1b[200~pasted\rlines\x1b[201~\r")
        terminal.expect(SENTENCE)
        terminal.expect(HINT)
        terminal.line("/save pasted")
        terminal.expect("Created new model 'pasted'")
        terminal.expect(HINT)
        terminal.type(CTRL_D)
        assert terminal.ends() == 0
    assert store.resolve("pasted").messages[0] == {"role": "user", "content": "pasted\nlines"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_history_survives_a_kill(talk: Talk, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / ".ollama").mkdir()
    (tmp_path / ".ollama" / "history").write_text("".join(f"old {n}\n" for n in range(150)))
    with talk("hello") as terminal:
        terminal.expect(HINT)
        terminal.line("remember me")
        terminal.expect(SENTENCE)
        terminal.expect(HINT)
        terminal.line("/set nohistory")
        terminal.expect("Set 'nohistory' mode.")
        terminal.expect(HINT)
        terminal.line("forget me")
        terminal.expect(SENTENCE)
        terminal.expect(HINT)
        terminal.send(number)
        assert terminal.ends() == -number
    assert history(tmp_path) == [*(f"old {n}" for n in range(50, 150)), "remember me", "/set nohistory"]
    with talk("hello") as terminal:
        terminal.expect(HINT)
        terminal.type("\x1b[A\x1b[A\r")  # twice up
        terminal.expect(SENTENCE)
    assert history(tmp_path)[-1] == "remember me"


def test_an_editor_goes_on_with_the_line(talk: Talk, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf " and the rest" >> "$1"\n')
    editor.chmod(0o755)
    with talk("hello", OLLAMA_EDITOR=str(editor)) as terminal:
        terminal.expect(HINT)
        terminal.type("the beginning")
        terminal.expect("the beginning")
        terminal.type(CTRL_G)
        terminal.expect(">>> the beginning and the rest")
        terminal.expect(SENTENCE)
    assert history(tmp_path) == ["the beginning"]
    with talk("hello", OLLAMA_EDITOR="/nowhere/editor") as terminal:
        terminal.expect(HINT)
        terminal.type(CTRL_G)
        terminal.expect("error: cannot run /nowhere/editor")
        terminal.expect(HINT)


def test_a_server_that_goes_away_does_not_end_the_conversation(
    tmp_path: Path, chat_gguf: Path, talk: Talk
) -> None:
    create_from_gguf(ModelStore(tmp_path / "models"), "hello", chat_gguf)
    server = start_engine(tmp_path / "models", tmp_path / "log", HOME=str(tmp_path))
    with talk("hello", OLLAMA_HOST=server.url) as terminal:
        terminal.expect(HINT)
        server.stop()
        terminal.line("anyone?")
        terminal.expect("error: could not connect to the engine")
        terminal.expect("fix: llm-engine serve")
        terminal.expect(HINT)
        terminal.type(CTRL_D)
        assert terminal.ends() == 0


def test_pictures_by_their_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one.png", "two words.PNG", "it's.webp"):
        (tmp_path / name).write_bytes(PIXEL)
    escaped = str(tmp_path / "two words.PNG").replace(" ", "\\ ")
    text = f'compare {tmp_path}/one.png with {escaped} and "{tmp_path}/it\'s.webp", not /nowhere/x.png'
    message = with_media(text)
    assert message["content"] == "compare  with  and , not /nowhere/x.png"
    assert message["images"] == [base64.b64encode(PIXEL).decode()] * 3
    assert f"Added image '{tmp_path}/two words.PNG'" in capsys.readouterr().out
    assert with_media("no picture.png here") == {"role": "user", "content": "no picture.png here"}
    assert begins_with_path("/tmp/a.png what is it?")
    assert not begins_with_path("/set system look at a.png")


def test_one_answer_where_stdin_is_no_terminal(talk: Talk, tmp_path: Path) -> None:
    with talk("hello", "say it") as terminal:
        terminal.expect(SENTENCE)
        assert terminal.ends() == 0
    assert not (tmp_path / ".ollama").exists()
