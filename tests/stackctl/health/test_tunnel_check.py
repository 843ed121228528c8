"""The client's side: a tunnel that is up, that looks for its host, that was killed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stackctl.health.model import Status
from stackctl.tunnel import state
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import look
from tests.stackctl.health.support.servers import recording_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_the_lock_decides_whether_a_tunnel_lives() -> None:
    found = plan(health={"tunnels": ["home"]})
    assert look(found, "tunnel.home").summary == "was never up"
    lock = state.TunnelLock("home")
    state.write("home", {"state": "up", "reconnects": 2, "pid": os.getpid()})
    assert look(found, "tunnel.home").summary == "up, 2 reconnects"
    state.write("home", {"state": "reconnecting", "last_error": "no route to host", "pid": os.getpid()})
    searching = look(found, "tunnel.home")
    assert (searching.status, searching.summary) == (Status.WARNING, "reconnecting: no route to host")
    lock.release()
    assert look(found, "tunnel.home").status is Status.CRITICAL


def forward(service: str, port: int) -> dict[str, object]:
    return {"service": service, "local_host": "127.0.0.1", "local_port": port}


def test_a_tunnel_that_is_up_and_lets_nothing_through_is_critical() -> None:
    found = plan(health={"tunnels": ["home"], "timeout": "1s"})
    lock = state.TunnelLock("home")
    with recording_server() as server, socket.socket() as silent, socket.socket() as closed:
        # A process that is stopped: the kernel takes the connection, nobody answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed.bind(("127.0.0.1", 0))
        engine = forward("engine", int(server.url.rpartition(":")[2]))
        document = {"state": "up", "reconnects": 0, "pid": os.getpid(), "forwards": [engine]}
        state.write("home", document)
        assert look(found, "tunnel.home").summary == "up, 0 reconnects"
        webui, proxy = forward("webui", silent.getsockname()[1]), forward("proxy", closed.getsockname()[1])
        state.write("home", document | {"forwards": [engine, webui, proxy]})
        seen = look(found, "tunnel.home")
    lock.release()
    assert seen.status is Status.CRITICAL
    assert "webui (port " in seen.summary and "no answer within" in seen.summary
    assert "proxy (port " in seen.summary and "refused" in seen.summary
    assert "engine (" not in seen.summary
