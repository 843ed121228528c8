"""A conversation at the terminal: prompts, slash commands, several-line messages, pictures, history."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llm_engine.cli.answers import Printer, print_timings
from llm_engine.cli.client import Client, ServerError
from llm_engine.cli.slash import Commands
from llm_engine.errors import EngineError

MAX_MEDIA = 100 * 1024 * 1024
HISTORY_LINES = 100
_MEDIA = re.compile(r"(?:\.{0,2}/|~/|\w:)?[^\s'\"]*?\.(?:jpe?g|png|webp|wav)\b", re.IGNORECASE)


class Session:
    """State of the conversation; `Commands` changes it, `run` drives it."""

    def __init__(
        self,
        client: Client,
        base: dict[str, Any],
        shown: dict[str, Any],
        *,
        verbose: bool = False,
        wordwrap: bool = True,
        read: Callable[[str], str] = input,
    ) -> None:
        self.client = client
        self.base = base
        self.shown = shown
        self.verbose = verbose
        self.wordwrap = wordwrap
        self.hide_thinking = False
        self.history = not os.environ.get("OLLAMA_NOHISTORY")
        self.options: dict[str, Any] = {}
        self.system = ""
        self.messages: list[dict[str, Any]] = []
        self.read = read
        self.commands = Commands(self)

    @property
    def model(self) -> str:
        return str(self.base["model"])

    def run(self) -> None:
        """Until /bye or the end of the input."""
        self._load()
        with _line_editing(self):
            while True:
                try:
                    text = self._read_message()
                except EOFError:
                    click.echo()
                    return
                except KeyboardInterrupt:
                    click.echo("\nUse Ctrl + d or /bye to exit.")
                    continue
                if not text.strip():
                    continue
                if text.startswith("/") and not _MEDIA.match(text):
                    if self.commands.run(text):
                        return
                    continue
                self.say(text)

    def _load(self) -> None:
        # Loads the model before the first question, and says at once what is wrong with it.
        self.client.json("POST", "/api/generate", {"model": self.model, "stream": False})

    def _read_message(self) -> str:
        line = self.read(">>> ")
        if not line.startswith('"""'):
            return line
        lines = [line[3:]]
        while not lines[-1].rstrip().endswith('"""') or (len(lines) == 1 and not lines[0].strip()):
            lines.append(self.read("... "))
        return "\n".join(lines).rstrip().removesuffix('"""')

    def say(self, text: str) -> None:
        message: dict[str, Any] = {"role": "user", "content": text}
        if {"vision", "audio"} & set(self.shown.get("capabilities", [])):
            message = with_media(text)
        self.messages.append(message)
        try:
            answer = self._answer()
        except EngineError as error:
            self.messages.pop()
            click.echo(f"error: {error}", err=True)
            return
        if answer:
            self.messages.append({"role": "assistant", "content": answer})

    def request(self) -> dict[str, Any]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {**self.base, "messages": [*system, *self.messages], "options": self.options}

    def _answer(self) -> str:
        printer = Printer(wordwrap=self.wordwrap, hide_thinking=self.hide_thinking)
        answer, last = "", {}
        stream = self.client.stream("/api/chat", self.request())
        try:
            for piece in stream:
                message = piece.get("message", {})
                printer.thinking(message.get("thinking", ""))
                printer.content(message.get("content", ""))
                answer += message.get("content", "")
                last = piece
        except KeyboardInterrupt:
            pass  # the answer so far stays in the conversation
        finally:
            stream.close()  # type: ignore[attr-defined]  # a generator: closing it hangs up
            printer.end()
        if self.verbose:
            print_timings(last)
        return answer

    def switch(self, model: str) -> None:
        """Another model, and a fresh conversation with it."""
        self.shown = self.client.json("POST", "/api/show", {"model": model})
        self.base["model"] = model
        self.options, self.system, self.messages = {}, "", []
        click.echo(f"Loading model '{model}'")
        self._load()

    def save(self, name: str) -> None:
        body: dict[str, Any] = {"model": name, "from": self.model, "stream": False}
        if self.options:
            body["parameters"] = self.options
        if self.system:
            body["system"] = self.system
        kept = [{"role": m["role"], "content": m["content"]} for m in self.messages]
        if kept:
            body["messages"] = kept
        self.client.json("POST", "/api/create", body)
        click.echo(f"Created new model '{name}'")

    def try_(self, action: Callable[[], None]) -> None:
        """Runs what a command asks for; its failure ends the command, not the session."""
        try:
            action()
        except (ServerError, EngineError) as error:
            click.echo(f"error: {error}", err=True)


def with_media(text: str) -> dict[str, Any]:
    """A message with the pictures and sounds whose paths it mentions."""
    images: list[str] = []
    for found in _MEDIA.findall(text):
        path = Path(found).expanduser()
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_MEDIA:
            raise EngineError(f"{path} is larger than {MAX_MEDIA} bytes")
        images.append(base64.b64encode(path.read_bytes()).decode())
        text = text.replace(found, "").strip()
        click.echo(f"Added image '{found}'")
    message: dict[str, Any] = {"role": "user", "content": text}
    return {**message, "images": images} if images else message


@contextlib.contextmanager
def _line_editing(session: Session) -> Any:
    """Emacs keys and a history that outlives the session, where Python was built with readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = Path.home() / ".ollama" / "history"
    readline.set_history_length(HISTORY_LINES)
    readline.set_auto_history(session.history)
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        if session.history:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(path)
