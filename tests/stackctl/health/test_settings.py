"""Settings that would be noticed only in the night they are needed are refused when they are read."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from stackctl.cli.health import health
from stackctl.errors import UsageError
from stackctl.health import plan as plans
from stackctl.health import registry
from stackctl.health.http import HttpError, request
from stackctl.health.look.scene import Scene
from tests.stackctl.health.support.plans import channel, ping, plan
from tests.stackctl.health.support.scenes import HostView


def command(name: str, *needs: str) -> dict[str, object]:
    return {"id": name, "argv": ["true"], "needs": list(needs)}


def test_commands_that_need_each_other_are_refused_by_name() -> None:
    plan(health={"commands": [command("a", "command.b", "engine"), command("b"), command("c", "command.a")]})
    with pytest.raises(ValidationError, match=r"need each other.*: command\.a, command\.b"):
        plan(
            health={
                "commands": [command("a", "command.b"), command("b", "command.a"), command("c", "command.a")]
            }
        )
    with pytest.raises(ValidationError, match="need each other"):
        plan(health={"commands": [command("a", "command.a")]})


@pytest.mark.parametrize(
    ("check", "pair"),
    [
        ("disk", {"warn": "1%", "crit": "50%"}),
        ("disk./mnt/x", {"warn": "1%"}),
        ("gpu", {"warn": 95}),
        ("backup", {"warn": "9d", "crit": "8d"}),
        ("certificate.proxy", {"crit": "20d"}),
    ],
)
def test_thresholds_the_wrong_way_round_are_refused(check: str, pair: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"checks.{check}: warn .* must not be"):
        plan(health={"checks": {check: pair}})
    plan(health={"checks": {"disk": {"warn": "5%", "crit": "5%"}, "gpu": {"warn": 60, "crit": 70}}})


@pytest.mark.parametrize("remedy", ["no-such-procedure", "restart", "restart engin", "disk-ful -i room=1"])
def test_a_remedy_that_is_not_there_is_refused(remedy: str) -> None:
    found = plan(health={"checks": {"disk": {"remedy": remedy}}})
    with pytest.raises(UsageError, match=r"health\.checks\.disk\.remedy: no (service|procedure) "):
        registry.build(Scene(found, HostView()))


def test_remedies_that_are_there_are_taken(tmp_path: Path) -> None:
    for remedy in ("gpu-lost", "disk-full -i room=1", "restart engine"):
        registry.build(Scene(plan(health={"checks": {"disk": {"remedy": remedy}}}), HostView()))


@pytest.mark.parametrize("url", ["http://[bad/", "http://", "http://host:99999/", "http://a b/", "http://ü/"])
def test_urls_that_no_client_takes_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        channel(type="webhook", url=url)
    with pytest.raises(ValidationError):
        ping(url=url)


@pytest.mark.parametrize("headers", [{"X": "a\nb"}, {"X Y": "a"}, {"": "a"}, {"X": "\u20ac"}])
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        channel(type="webhook", url="http://127.0.0.1:1", headers=headers)


def test_what_a_client_does_not_take_is_an_error_in_words() -> None:
    for url, headers in (
        ("http://[bad/", {}),
        ("http://h:99999/", {}),
        ("http://127.0.0.1:1", {"X": "a\nb"}),
    ):
        with pytest.raises(HttpError):
            request("GET", url, timeout=1, headers=headers)


def test_what_nobody_thought_of_is_unknown_and_not_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(plans, "load", breaks)
    done = CliRunner().invoke(health, ["--nagios"], obj={"stack_file": None})
    assert done.exit_code == 3
    assert done.stdout == "UNKNOWN: stackctl health could not run, see stderr\n"
    assert "error: health could not run: ValueError: nobody thought of this" in done.stderr
    monkeypatch.setattr(plans, "load", lambda *_: (_ for _ in ()).throw(click.UsageError("wrong")))
    assert CliRunner().invoke(health, [], obj={"stack_file": None}).exit_code == 2
