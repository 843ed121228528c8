"""Whose user id a container gets, by what kind of engine it is."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from stackctl.config import StackConfig
from stackctl.render import Facts, render
from stackctl.runtime.docker.identity import Identity, container_user, identity

OPTIONS = [
    ('["name=seccomp,profile=builtin","name=rootless","name=cgroupns"]', Identity(rootless=True)),
    ('["name=apparmor","name=userns"]', Identity(shifted=True)),
    ('["name=seccomp,profile=rootless-like"]', Identity()),
    ("null", Identity()),
]


@pytest.mark.parametrize(("answer", "found"), [*OPTIONS, ("Cannot connect", Identity())])
def test_what_the_program_says_of_an_engine_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: Identity
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@gpu.example.org")
    assert identity() == found


@pytest.mark.parametrize(("answer", "found"), OPTIONS)
def test_what_the_engine_here_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: Identity
) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    body = f'{{"SecurityOptions": {answer}}}'.encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        asked: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    asked.append(client.recv(4096))
                    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        threading.Thread(target=serve, daemon=True).start()
        try:
            assert identity() == found and asked[0].startswith(b"GET /info ")
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def test_in_a_rootless_engine_containers_run_as_0() -> None:
    """Inside, every other id is one of the subordinate ids, which own nothing of ours."""
    facts = Facts("docker", user=container_user(Identity(rootless=True)))
    engine = render(StackConfig(), facts).document["services"]["engine"]
    assert (engine["user"], engine["cap_drop"]) == ("0:0", ["ALL"])


def test_in_the_usual_engine_it_is_ours_and_never_root() -> None:
    own = f"{os.geteuid()}:{os.getegid()}"
    assert container_user(Identity()) == ("10001:10001" if os.geteuid() == 0 else own)
