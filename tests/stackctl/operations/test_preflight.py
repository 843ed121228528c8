"""What `up` puts in place before anything starts, and takes away when nothing needs it any more."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stackctl import paths
from stackctl.operations import preflight
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
        assert [one for one, _ in preflight.held_by_others(wanted, listening)] == [wanted[1]]
        assert asked == [1]
