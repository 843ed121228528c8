"""A restore drill beside the real stack, without Docker: proven, cut off, and never at a neighbour's cost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stackctl.runtime.local import children, usage
from tests.support.stacks import Folder, free_port, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def backed_up(folder: Folder) -> Folder:
    passphrase = folder.path / "passphrase"
    passphrase.write_text("correct horse battery")
    folder.write(
        {
            "runtime": "local",
            "services": {"engine": {"port": free_port()}},
            "backup": {"passphrase_file": str(passphrase)},
        }
    )
    folder.ok("up")
    folder.run("secrets", "set", "some_key", input="value")
    folder.ok("backup", "create")
    return folder


def drill_state(folder: Folder) -> Path:
    return folder.state.with_name(f"{folder.name}-drill")


def test_a_drill_that_was_cut_off_is_taken_away_by_the_next(backed_up: Folder) -> None:
    code = backed_up.cut_off("run", "restore-drill", at="waiting for engine", number=signal.SIGKILL)
    assert code == -signal.SIGKILL
    left = children.supervisor(drill_state(backed_up))
    assert left is not None, "its services go on"
    again = backed_up.ok("run", "restore-drill")
    assert "came up healthy" in again.err and "secrets" not in again.err.partition("came up healthy")[2]
    wait_for(lambda: usage.start_time(left) is None, "the first drill's supervisor has ended")
    assert not drill_state(backed_up).exists() and not (backed_up.state / "drill").exists()
    assert backed_up.ok("status", "--json").json["services"][0]["health"] == "healthy"


def test_a_stack_that_has_the_name_is_left_alone_and_no_key_means_new_secrets(backed_up: Folder) -> None:
    neighbour = drill_state(backed_up)
    (neighbour / "secrets").mkdir(parents=True)
    (neighbour / "secrets" / "precious").write_text("mine")
    refused = backed_up.run("run", "restore-drill")
    assert refused.code == 3 and f"there is a stack called {backed_up.name}-drill" in refused.err
    assert (neighbour / "secrets" / "precious").read_text() == "mine"
    neighbour.rename(neighbour.with_name("elsewhere"))
    stack_file = backed_up.path / "stack.yaml"
    stack_file.write_text(stack_file.read_text().replace("passphrase_file", "# passphrase_file"))
    assert "with new secrets" in backed_up.ok("run", "restore-drill").err
