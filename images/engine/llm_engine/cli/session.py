"""A conversation at the terminal: prompts, commands, several-line messages, answers that can be stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from llm_engine.cli.answers import Printer, print_timings
from llm_engine.cli.attachments import begins_with_path, with_media
from llm_engine.cli.client import Client
from llm_engine.cli.editor import edited
from llm_engine.cli.lines import EDIT, Lines
from llm_engine.cli.slash import Commands
from llm_engine.errors import EngineError

HINT = "Send a message (/? for help)"
HINT_MORE = 'Use """ to end multi-line input'


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
    ) -> None:
        self.client = client
        self.base = base
        self.shown = shown
        self.verbose = verbose
        self.wordwrap = wordwrap
        self.hide_thinking = False
        self.lines = Lines(remember=not os.environ.get("OLLAMA_NOHISTORY"))
        self.options: dict[str, Any] = {}
        self.system = ""
        self.messages: list[dict[str, Any]] = []
        self.commands = Commands(self)

    @property
    def model(self) -> str:
        return str(self.base["model"])

    def run(self) -> None:
        """Until /bye or the end of the input."""
        self._load(self.model)
        self._recall()
        while True:
            try:
                text = self._read_message()
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                # With something typed it only drops that, as shells do.
                click.echo("\nUse Ctrl + d or /bye to exit." if self.lines.interrupted_empty() else "")
                continue
            except EngineError as error:  # of the editor
                _tell(error)
                continue
            try:
                if self._act_on(text):
                    return
            except KeyboardInterrupt:
                click.echo()

    def _act_on(self, text: str) -> bool:
        """True ends the conversation."""
        if text.startswith("/") and not begins_with_path(text):
            return self.commands.run(text)
        if text.strip():
            self.say(text)
        return False

    def _load(self, model: str) -> None:
        # Loads the model before the first question, and says at once what is wrong with it.
        wanted = {key: self.base[key] for key in ("keep_alive",) if key in self.base}
        self.client.json("POST", "/api/generate", {**wanted, "model": model, "stream": False})

    def _recall(self) -> None:
        """The messages that the model brings along: the conversation goes on behind them."""
        for message in self.shown.get("messages") or []:
            if message.get("role") == "user":
                click.echo(f">>> {message.get('content', '')}")
            elif message.get("role") == "assistant":
                click.echo(f"{message.get('content', '')}\n")

    def _read_message(self) -> str:
        line = self.lines.read(">>> ", HINT)
        if line.endswith(EDIT):
            return edited(line.removesuffix(EDIT))
        return self.rest_of(line[3:]) if line.startswith('"""') else line

    def rest_of(self, first: str) -> str:
        """A text that began behind three quotes; lines are read until three more end one."""
        lines = [first]
        while not lines[-1].rstrip().endswith('"""') or (len(lines) == 1 and not first.strip()):
            lines.append(self.lines.read("... ", HINT_MORE))
        return "\n".join(lines).rstrip().removesuffix('"""')

    def say(self, text: str) -> None:
        message: dict[str, Any] = {"role": "user", "content": text}
        before = len(self.messages)
        try:
            if {"vision", "audio"} & set(self.shown.get("capabilities", [])):
                message = with_media(text)
            self.messages.append(message)
            answer = self._answer()
        except EngineError as error:
            del self.messages[before:]
            _tell(error)
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
        shown = self.client.json("POST", "/api/show", {"model": model})
        click.echo(f"Loading model '{model}'")
        self._load(model)
        self.shown, self.base["model"] = shown, model
        self.options, self.system, self.messages = {}, "", []
        self._recall()

    def save(self, name: str) -> None:
        body: dict[str, Any] = {"model": name, "from": self.model, "stream": False}
        if self.options:
            body["parameters"] = self.options
        if self.system:
            body["system"] = self.system
        if self.messages:
            # They take the place of those that the model brought along, so these go with them.
            body["messages"] = [*(self.shown.get("messages") or []), *self.messages]
        self.client.json("POST", "/api/create", body)
        click.echo(f"Created new model '{name}'")

    def try_(self, action: Callable[[], None]) -> None:
        """Runs what a command asks for; its failure ends the command, not the session."""
        try:
            action()
        except EngineError as error:
            _tell(error)


def _tell(error: EngineError) -> None:
    click.echo(f"error: {error}", err=True)
    if error.fix:
        click.echo(f"fix: {error.fix}", err=True)
