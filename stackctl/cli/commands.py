"""The table of commands: name, home, one-line help (kept here so that --help imports nothing)."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    attribute: str
    help: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("stackctl.cli.init", "init", "Write a commented stack.yaml into this folder."),
    "up": Entry("stackctl.cli.up", "up", "Bring the stack up, and prove that it works."),
    "status": Entry("stackctl.cli.status", "status", "Show what runs now, the loaded models, and drift."),
    "logs": Entry("stackctl.cli.logs", "logs", "Show the logs of the services as one stream."),
    "plan": Entry("stackctl.cli.render", "plan", "Show what `up` would change."),
    "render": Entry("stackctl.cli.render", "render", "Print what `up` would run."),
    "down": Entry("stackctl.cli.down", "down", "Take the stack down; data stays."),
    "restart": Entry("stackctl.cli.down", "restart", "Restart services, and wait until they are healthy."),
    "exec": Entry("stackctl.cli.logs", "exec_", "Run a command inside a service."),
    "config": Entry("stackctl.cli.config", "config", "Show, check and explain the stack file."),
    "health": Entry("stackctl.cli.health", "health", "Check the stack; the exit code is the answer."),
    "watch": Entry("stackctl.cli.watch", "watch", "Show the checks live."),
    "silence": Entry("stackctl.cli.silence", "silence", "Hold messages back during planned work."),
    "upgrade": Entry(
        "stackctl.cli.upgrade", "upgrade", "Move to the newest version, or stay on the old one."
    ),
    "rollback": Entry("stackctl.cli.upgrade", "rollback", "Go back to an earlier generation."),
    "outdated": Entry(
        "stackctl.cli.upgrade", "outdated", "List services with a newer image; quiet when none."
    ),
    "generations": Entry(
        "stackctl.cli.upgrade", "generations", "List what ran here and can be gone back to."
    ),
    "backup": Entry("stackctl.cli.backup", "backup", "Back up and restore what cannot be made again."),
    "run": Entry("stackctl.cli.procedures", "run", "Run a procedure."),
    "procedures": Entry("stackctl.cli.procedures", "procedures", "The runbooks: list, show, lint, history."),
    "models": Entry("stackctl.cli.models", "models", "List, pull, remove, load and pin models."),
    "secrets": Entry("stackctl.cli.secrets", "secrets", "List, set and rotate the stack's secrets."),
    "doctor": Entry("stackctl.cli.doctor", "doctor", "Check this host, and say what to do."),
    "top": Entry("stackctl.cli.top", "top", "Show the stack, live."),
    "history": Entry("stackctl.cli.audit", "history", "Show who changed this stack, and when."),
    "install-units": Entry(
        "stackctl.cli.units", "install_units", "Start the stack at boot, and run its jobs on time."
    ),
    "completion": Entry("stackctl.cli.completion", "completion", "Print the completion script of a shell."),
    "tunnel": Entry("stackctl.cli.tunnel", "tunnel", "Reach a host's services on local ports, over SSH."),
    "host": Entry("stackctl.cli.hosts", "host", "Install stackctl on another host."),
    "hosts": Entry("stackctl.cli.hosts", "hosts", "Show all hosts side by side."),
    "session": Entry("stackctl.cli.hosts", "session", "Runs that outlive their connection (for --host)."),
}
