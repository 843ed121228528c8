"""The client's side: a tunnel that is up, that looks for its host, that was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackctl.health.model import Status
from stackctl.tunnel import state
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import look


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
