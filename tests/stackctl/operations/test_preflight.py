"""What `up` puts in place before anything starts, and takes away when nothing needs it any more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl import paths
from stackctl.errors import PreflightError
from stackctl.operations import preflight
from stackctl.runtime import ports
from stackctl.runtime.generations import GenerationStore


def test_configuration_files_go_with_the_last_generation_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store, files = GenerationStore("t"), paths.state_dir("t") / "files"
    files.mkdir(parents=True)
    for number in range(1, 4):
        texts = {"compose.yaml": "{}", f"{number}-Caddyfile": "x", "shared.yml": "x"}
        store.activate(store.write(texts, runtime="docker", lock={}, meta={}))
        for name in texts:
            (files / name).write_text("x")
    (files / "compose.yaml").unlink()
    (files / ".4-Caddyfile.new").write_text("a writer was killed")
    store.prune(2)
    preflight.prune_files(files, store.all())
    assert sorted(one.name for one in files.iterdir()) == ["2-Caddyfile", "3-Caddyfile", "shared.yml"]
    preflight.prune_files(tmp_path / "none", store.all())


def test_a_port_is_ours_also_when_we_begin_to_listen_while_it_is_looked_at() -> None:
    with socket.socket() as ours, socket.socket() as strange:
        strange.bind(("127.0.0.1", 0))
        strange.listen()
        taken = strange.getsockname()[1]
        ours.bind(("127.0.0.1", 0))
        own = ours.getsockname()[1]
        ours.listen()
        asked = []

        def listening() -> set[int]:
            """What the runtime says by the time that it is asked: the service has come up meanwhile."""
            asked.append(1)
            return {own}

        wanted = [("engine", "127.0.0.1", own), ("gateway", "127.0.0.1", taken)]
        assert [one for one, _ in preflight.held_by_others(wanted, listening, "local")] == [wanted[1]]
        assert asked == [1]


FORBIDDEN = """
import json, os, sys
from stackctl.errors import PreflightError
from stackctl.operations import preflight
os.setgid(65534), os.setuid(65534)
wanted = [("proxy", "127.0.0.1", int(sys.argv[1]))]
for runtime in ("local", "docker"):
    found = preflight.held_by_others(wanted, set, runtime)
    print(json.dumps([[why.reason, why.forbidden] for _, why in found]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen on a port that others may not")
def test_a_port_that_this_user_may_not_have_is_not_a_port_that_is_taken(tmp_path: Path) -> None:
    """Docker's own process may: there the port is free. But one that is in use is found all the same."""

    def asked(port: int) -> list[object]:
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(port)],
            env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    low = _low_port()
    with low:
        port = low.getsockname()[1]
        assert asked(port) == [[["Address already in use", False]]] * 2
    assert asked(port) == [[["Permission denied", True]], []]


def _low_port() -> socket.socket:
    """A listener below 1024, on whichever port is free."""
    for port in range(1023, 512, -1):
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        held.listen()
        return held
    raise AssertionError("no port below 1024 is free")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_who_listens_is_known_by_address_too(address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as held:
        held.bind((address, 0))
        held.listen()
        port = held.getsockname()[1]
        assert ports.is_listened_on(address, port)
        assert ports.is_listened_on("0.0.0.0", port)
        assert ports.is_listened_on("127.0.0.9", port) == (address == "0.0.0.0")


def test_a_link_to_the_engines_socket_is_no_way_around_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harmless").symlink_to("/run")
    with pytest.raises(PreflightError, match=r"harmless has /run/docker\.sock in it"):
        preflight.refuse_engine_socket("engine", tmp_path / "harmless")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mine/engine.sock")
    with pytest.raises(PreflightError, match=r"mine/engine\.sock in it"):
        preflight.refuse_engine_socket("engine", tmp_path / "mine")
    preflight.refuse_engine_socket("engine", tmp_path / "models")
