"""The table of commands: name, where it lives, and its one-line help (kept here so that --help imports
nothing)."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    attribute: str
    help: str
    hidden: bool = False


COMMANDS: dict[str, Entry] = {
    "serve": Entry("llm_engine.cli.serve", "serve", "Serve the Ollama, OpenAI and Anthropic APIs."),
    "start": Entry("llm_engine.cli.serve", "serve", "The same as serve.", hidden=True),
    "create": Entry("llm_engine.cli.create", "create", "Make a model as a Modelfile says."),
    "show": Entry("llm_engine.cli.show", "show", "Show what a model is."),
    "run": Entry("llm_engine.cli.run", "run", "Ask a model, or talk with it."),
    "stop": Entry("llm_engine.cli.verbs", "stop", "Unload a model."),
    "pull": Entry("llm_engine.cli.verbs", "pull", "Fetch a model from a registry."),
    "push": Entry("llm_engine.cli.verbs", "push", "Send a model to a registry."),
    "list": Entry("llm_engine.cli.verbs", "list_", "List the models there are."),
    "ls": Entry("llm_engine.cli.verbs", "list_", "The same as list.", hidden=True),
    "ps": Entry("llm_engine.cli.verbs", "ps", "List the models that are loaded."),
    "cp": Entry("llm_engine.cli.verbs", "cp", "Give a model a second name."),
    "rm": Entry("llm_engine.cli.verbs", "rm", "Remove models."),
    "export": Entry("llm_engine.cli.bundle", "export", "Write a model as a tar file."),
    "import": Entry("llm_engine.cli.bundle", "import_", "Store the models of a tar file."),
    "login": Entry("llm_engine.cli.login", "login", "Keep a password for a private registry."),
    "logout": Entry("llm_engine.cli.login", "logout", "Forget the password for a registry."),
    "doctor": Entry("llm_engine.cli.doctor", "doctor", "Examine the model store."),
    "keys": Entry("llm_engine.cli.serve", "keys", "Make and remove API keys."),
    "demo-model": Entry(
        "llm_engine.cli.demo",
        "demo_model",
        "Write a tiny model that says one fixed sentence, for a first try.",
    ),
}
