"""The commands of a conversation: everything that begins with a slash."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from llm_engine.cli.editor import edited
from llm_engine.cli.show import overview
from llm_engine.cli.verbs import models_table
from llm_engine.models.parameters import InvalidParameter, from_text, is_list

if TYPE_CHECKING:
    from llm_engine.cli.session import Session

HELP = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load <model>   Load a session or model
  /save <model>   Save your current session
  /clear          Clear session context
  /list           List models
  /edit           Write the next message in $EDITOR
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message.
"""
HELP_SET = """\
Available Commands:
  /set parameter ...     Set a parameter
  /set system <string>   Set system message
  /set history           Enable history
  /set nohistory         Disable history
  /set wordwrap          Enable wordwrap
  /set nowordwrap        Disable wordwrap
  /set format json       Enable JSON mode
  /set noformat          Disable formatting
  /set verbose           Show LLM stats
  /set quiet             Disable LLM stats
  /set think [level]     Enable thinking
  /set nothink           Disable thinking
"""
HELP_SHOW = """\
Available Commands:
  /show info         Show details for this model
  /show license      Show model license
  /show modelfile    Show Modelfile for this model
  /show parameters   Show parameters for this model
  /show system       Show system message
  /show template     Show prompt template
"""
HELP_SHORTCUTS = """\
Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line
  Ctrl + e            Move to the end of the line
   Alt + b            Move back one word
   Alt + f            Move forward one word
  Ctrl + k            Delete the rest of the line
  Ctrl + u            Delete the line up to the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + l            Clear the screen
  Ctrl + g            Go on in $OLLAMA_EDITOR, $VISUAL or $EDITOR
  Ctrl + c            Stop the model from responding
  Ctrl + d            Exit
"""
SHOWN = {
    "license": "license",
    "modelfile": "Modelfile",
    "system": "system message",
    "template": "prompt template",
}


class Commands:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.table: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": lambda rest: self._named(rest, self.session.switch, "/load <model>"),
            "/save": lambda rest: self._named(rest, self.session.save, "/save <model>"),
            "/clear": lambda rest: self._clear(),
            "/list": lambda rest: self.session.try_(self._list),
            "/edit": lambda rest: self.session.try_(self._edit),
            "/?": self._help,
            "/help": self._help,
        }

    def run(self, line: str) -> bool:
        """True ends the conversation."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/bye", "/exit"):
            return True
        action = self.table.get(word)
        if action is None:
            click.echo(f"Unknown command '{word}'. Type /? for help")
        else:
            action(rest.strip())
        return False

    def _named(self, rest: str, action: Callable[[str], None], usage: str) -> None:
        if not rest or " " in rest:
            click.echo(f"Usage:\n  {usage}")
        else:
            self.session.try_(lambda: action(rest))

    def _help(self, rest: str) -> None:
        texts = {"set": HELP_SET, "show": HELP_SHOW, "shortcuts": HELP_SHORTCUTS}
        click.echo(texts.get(rest.lstrip("/"), HELP))

    def _clear(self) -> None:
        self.session.messages = []
        click.echo("Cleared session context")

    def _list(self) -> None:
        click.echo(models_table(self.session.client.json("GET", "/api/tags")["models"]))

    def _show(self, rest: str) -> None:
        shown = self.session.shown
        if rest == "info":
            click.echo(overview(shown), nl=False)
        elif rest == "system" and self.session.system:
            click.echo(f"{self.session.system}\n")
        elif rest == "parameters":
            self._show_parameters(shown.get("parameters", ""))
        elif rest in SHOWN:
            click.echo(f"{shown.get(rest) or f'No {SHOWN[rest]} was specified for this model.'}\n")
        else:
            click.echo(HELP_SHOW)

    def _show_parameters(self, of_model: str) -> None:
        lines = of_model.splitlines() or ["No additional parameters were specified for this model."]
        click.echo("Model defined parameters:\n" + "".join(f"  {line}\n" for line in lines))
        if self.session.options:
            click.echo("User defined parameters:")
            for name, value in self.session.options.items():
                click.echo(f"  {name:<30} {value}")
            click.echo()

    def _set(self, rest: str) -> None:
        word, _, value = rest.partition(" ")
        value = value.strip()
        session = self.session
        switches: dict[str, Callable[[], str]] = {
            "history": lambda: self._history(True, "Set 'history' mode."),
            "nohistory": lambda: self._history(False, "Set 'nohistory' mode."),
            "wordwrap": lambda: self._attribute("wordwrap", True, "Set 'wordwrap' mode."),
            "nowordwrap": lambda: self._attribute("wordwrap", False, "Set 'nowordwrap' mode."),
            "verbose": lambda: self._attribute("verbose", True, "Set 'verbose' mode."),
            "quiet": lambda: self._attribute("verbose", False, "Set 'quiet' mode."),
            "think": lambda: self._base("think", value or True, "Set 'think' mode."),
            "nothink": lambda: self._base("think", False, "Set 'nothink' mode."),
            "noformat": lambda: self._base("format", None, "Disabled format."),
        }
        if word in switches:
            click.echo(switches[word]())
        elif word == "format" and value == "json":
            click.echo(self._base("format", "json", "Set format to 'json' mode."))
        elif word == "format":
            click.echo('Invalid or missing format. For "json" mode use "/set format json"')
        elif word == "system" and value:
            session.system = session.rest_of(value[3:]) if value.startswith('"""') else value.strip('"')
            click.echo("Set system message.")
        elif word == "parameter":
            self._parameter(value)
        else:
            click.echo(HELP_SET)

    def _attribute(self, name: str, value: bool, said: str) -> str:
        setattr(self.session, name, value)
        return said

    def _history(self, value: bool, said: str) -> str:
        self.session.lines.remember = value
        return said

    def _base(self, name: str, value: Any, said: str) -> str:
        if value is None:
            self.session.base.pop(name, None)
        else:
            self.session.base[name] = value
        return said

    def _parameter(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if not value.strip():
            click.echo("Usage:\n  /set parameter <name> <value>")
            return
        try:
            if is_list(name):
                self.session.options[name] = [from_text(name, item) for item in value.split()]
            else:
                self.session.options[name] = from_text(name, value.strip())
        except InvalidParameter as error:
            click.echo(f"Couldn't set parameter: {error}")
            return
        click.echo(f"Set parameter '{name}' to '{value.strip()}'")

    def _edit(self) -> None:
        if text := edited(""):
            self.session.say(text)
