"""Whose user id a container gets, by what kind of engine it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackctl.config import StackConfig
from stackctl.operations.facts import gather
from stackctl.render import render
from stackctl.runtime.docker.identity import Identity, container_user, identity


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('["name=seccomp,profile=builtin","name=rootless","name=cgroupns"]', Identity(rootless=True)),
        ('["name=apparmor","name=userns"]', Identity(shifted=True)),
        ('["name=seccomp,profile=rootless-like"]', Identity()),
        ("null", Identity()),
        ("Cannot connect", Identity()),
    ],
)
def test_what_the_engine_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: Identity
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert identity() == found
    if found.rootless:
        # Inside, every other id is one of the subordinate ids, which own nothing of ours.
        facts = gather(StackConfig.model_validate({"gpu": {"mode": "none"}}), "docker")
        assert facts.user == "0:0"
        engine = render(StackConfig(), facts).document["services"]["engine"]
        assert (engine["user"], engine["cap_drop"]) == ("0:0", ["ALL"])


def test_in_the_usual_engine_it_is_ours_and_never_root() -> None:
    own = f"{os.geteuid()}:{os.getegid()}"
    assert container_user(Identity()) == ("10001:10001" if os.geteuid() == 0 else own)
