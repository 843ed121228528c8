"""The command line as people meet it: errors with a fix, JSON alone on stdout, no prompts without a
terminal."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path

import pytest

from stackctl.cli.commands import COMMANDS
from tests.support.stacks import Folder


def test_init_then_a_second_init_is_refused(folder: Folder) -> None:
    folder.ok("init")
    assert (folder.path / "stack.yaml").read_text().startswith("# A stack of stackctl.")
    done = folder.run("init")
    assert done.code == 2 and "is there already" in done.err and "fix: stackctl init --force" in done.err
    assert folder.run("init", "--force", "--name", "No Good").code != 0


def test_a_wrong_file_gives_every_problem_and_exit_2(folder: Folder) -> None:
    (folder.path / "stack.yaml").write_text("expose: lann\nservices: {engin: {}}\n")
    done = folder.run("config", "validate")
    assert done.code == 2
    assert "stack.yaml:1: expose" in done.err and "did you mean 'engine'?" in done.err
    as_json = folder.run("config", "validate", "--json")
    assert as_json.code == 2 and len(as_json.json["problems"]) == 2 and as_json.err == ""


@pytest.mark.parametrize("command", ["up", "status", "plan", "render", "down", "logs", "config show"])
def test_a_wrong_file_stops_every_command(folder: Folder, command: str) -> None:
    (folder.path / "stack.yaml").write_text("nmae: x\n")
    done = folder.run(*command.split())
    assert done.code == 2 and "did you mean 'name'?" in done.err and "Traceback" not in done.err


def test_status_without_a_stack_file_says_how_to_make_one(folder: Folder) -> None:
    done = folder.run("status")
    assert done.code == 2 and "fix: stackctl init" in done.err


def test_show_origin(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    values = {one["key"]: one for one in folder.ok("config", "show", "--origin", "--json").json["values"]}
    assert values["runtime"]["origin"].startswith("stack.yaml:")
    assert values["services.engine.port"] == {
        "key": "services.engine.port",
        "value": 11434,
        "origin": "default",
    }


def test_overlay_from_the_command_line(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    (folder.path / "stack.night.yaml").write_text("services: {engine: {port: 12345}}")
    done = folder.ok("--overlay", "night", "config", "show", "--json")
    assert done.json["config"]["services"]["engine"]["port"] == 12345
    assert folder.run("--overlay", "nihgt", "status").code == 2


def test_schema_and_sample_are_printed(folder: Folder) -> None:
    assert json.loads(folder.ok("config", "docs", "--format", "schema").out)["title"] == "stack.yaml"
    assert "# services:" in folder.ok("config", "docs").out


def test_a_mistyped_service_gets_a_suggestion(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    done = folder.run("logs", "engin")
    assert done.code == 2 and "did you mean 'engine'?" in done.err


def test_secrets_come_by_standard_input_and_never_out(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    folder.ok("secrets", "set", "hf_token", input="open-sesame-please\n")
    listed = folder.ok("secrets", "list", "--json")
    assert listed.json["secrets"][0]["name"] == "hf_token"
    assert "open-sesame" not in listed.out + folder.ok("secrets", "list").out
    assert folder.run("secrets", "rotate", "nobody").code == 2
    assert "open-sesame" not in (folder.state / "audit.jsonl").read_text()


def test_a_token_that_others_issued_is_not_overwritten(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    folder.ok("secrets", "set", "hf_token", input="open-sesame-please\n")
    done = folder.run("secrets", "rotate", "hf_token")
    assert done.code == 2 and "issued by somebody else" in done.err
    assert "then: stackctl secrets set hf_token" in done.err
    assert (folder.state / "secrets" / "hf_token").read_text() == "open-sesame-please\n"
    listed = folder.ok("secrets", "list", "--json").json["secrets"][0]
    assert listed["rotatable"] is False and "not made by stackctl" in listed["on_rotate"]
    last = folder.ok("history", "--json").json["entries"][-1]
    assert last["action"] == "secrets rotate" and last["result"].startswith("UsageError: secret hf_token")


def test_verbose_prints_outside_commands_as_typed(folder: Folder) -> None:
    folder.write({"runtime": "auto"})
    assert "+ docker version" in folder.run("-v", "status").err


def test_no_prompt_without_a_terminal(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    done = folder.run("down", "--volumes")
    assert done.code == 2 and "fix: give --yes" in done.err
    folder.ok("down", "--volumes", "--yes")


def test_a_port_held_by_another_is_refused_with_its_holder(folder: Folder) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as held:
        folder.write({"runtime": "local", "services": {"engine": {"port": held.getsockname()[1]}}})
        done = folder.run("up")
    assert done.code == 3 and "is taken by" in done.err


def test_a_missing_mount_is_refused(folder: Folder, tmp_path: Path) -> None:
    folder.write({"runtime": "local", "data_mount": str(tmp_path), "data_dir": str(tmp_path / "d")})
    done = folder.run("up")
    assert done.code == 3 and "is not mounted" in done.err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(folder: Folder, shell: str) -> None:
    assert "stackctl" in folder.ok("completion", shell).out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("logs en", "engine"),
        ("secrets rotate to", "token_of_mine"),
        ("doctor --only models", "models-folder"),
    ],
)
def test_completion_knows_live_names(folder: Folder, typed: str, completed: str) -> None:
    folder.write({"runtime": "local"})
    folder.ok("secrets", "set", "token_of_mine", input="x")
    words = f"stackctl {typed}"
    folder.environment |= {
        "_STACKCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert folder.run().out.splitlines() == [f"plain,{completed}"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_and_the_table_says_the_truth(command: str) -> None:
    import importlib

    entry = COMMANDS[command]
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    assert found.name == command
    assert found.help and len(entry.help) < 80


def test_a_secret_in_the_stack_file_is_not_shown(folder: Folder) -> None:
    setting = {"API_KEY": "open-sesame-please", "MODE": "quiet"}
    folder.write({"runtime": "local", "services": {"engine": {"environment": setting}}})
    for arguments in ([], ["--json"], ["--origin"], ["--origin", "--json"]):
        shown = folder.ok("config", "show", *arguments).out
        assert "open-sesame" not in shown and "***" in shown and "quiet" in shown
