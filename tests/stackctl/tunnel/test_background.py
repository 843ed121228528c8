"""The tunnel as a person has it: `stackctl tunnel up`, its process killed, and brought back."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stackctl.tunnel import probe
from tests.stackctl.tunnel.conftest import eventually
from tests.support.sshd import Sshd, free_port

pytestmark = pytest.mark.peer
STACKCTL = str(Path(sys.executable).with_name("stackctl"))


class Laptop:
    """The near side: its own state and configuration, one host entry, one web page on the far side."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder, self.sshd = folder, sshd
        # Of its own, so that what a killed tunnel leaves there can be looked for.
        self._tmp = tempfile.TemporaryDirectory(prefix="scl")
        self.tmp = Path(self._tmp.name)
        self.env = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "HOME": str(folder),
            "TMPDIR": self._tmp.name,
            "XDG_RUNTIME_DIR": self._tmp.name,
        }
        self.hosts_file = folder / "config" / "stackctl" / "hosts.yaml"
        self.hosts_file.parent.mkdir(parents=True)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.entry(forward={"webui": {"remote": self.page}})

    @property
    def page(self) -> int:
        return int(self.server.server_address[1])

    @property
    def state_folder(self) -> Path:
        return self.folder / "state" / "stackctl" / "tunnels" / "box"

    def entry(self, **fields: Any) -> None:
        entry = {"ssh_config": str(self.sshd.ssh_config()), **fields}
        self.hosts_file.write_text(json.dumps({"box": entry}))

    def stackctl(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [STACKCTL, *words], env=self.env, capture_output=True, text=True, timeout=60, cwd=self.folder,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def status(self, code: int | None = 0) -> dict[str, Any]:
        found = json.loads(self.stackctl("tunnel", "status", "--json", code=code).stdout)["tunnels"]
        assert len(found) == 1
        return dict(found[0])

    def close(self) -> None:
        subprocess.run([STACKCTL, "tunnel", "down", "--all"], env=self.env, capture_output=True, timeout=60)
        self.server.shutdown()
        self.server.server_close()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def laptop(tmp_path: Path, sshd: Sshd) -> Iterator[Laptop]:
    made = Laptop(tmp_path, sshd)
    yield made
    made.close()


def _gone(pid: int) -> bool:
    """Gone, or a zombie that a container without an init has not reaped."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_up_status_second_up_and_down(laptop: Laptop, transport: str) -> None:
    laptop.entry(transport=transport, forward={"webui": {"remote": laptop.page}})
    up = json.loads(laptop.stackctl("tunnel", "up", "box", "--json").stdout)
    assert (up["schema"], up["state"], up["transport"]) == ("stackctl.tunnel/1", "up", transport)
    assert os.getsid(up["pid"]) == up["pid"], "it must have left our session"
    status = laptop.status()
    assert status["well"] and status["pid"] == up["pid"]
    assert [(probe["service"], probe["alive"]) for probe in status["probes"]] == [("webui", True)]
    assert status["forwards"][0]["remote"] == f"127.0.0.1:{laptop.page}"
    second = laptop.stackctl("tunnel", "up", "box")
    assert "is up already" in second.stderr
    assert second.stdout == f"webui      http://{status['forwards'][0]['local']}\n"
    assert laptop.status()["pid"] == up["pid"]
    assert laptop.stackctl("tunnel", "list").stdout.split()[:2] == ["box", "up"]
    assert "up" in laptop.stackctl("tunnel", "logs", "box").stdout
    assert "box: down" in laptop.stackctl("tunnel", "down", "box").stderr
    assert _gone(up["pid"])
    port = up["forwards"][0]["local_port"]
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0
    assert laptop.status()["state"] == "stopped"  # on purpose: no illness, exit 0
    assert "was not up" in laptop.stackctl("tunnel", "down", "box").stderr


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_killed_tunnel_is_seen_cleared_and_brought_back(laptop: Laptop, transport: str) -> None:
    laptop.entry(transport=transport, forward={"webui": {"remote": laptop.page}})
    up = json.loads(laptop.stackctl("tunnel", "up", "box", "--json").stdout)
    children = _children(up["pid"])
    assert len(children) == (1 if transport == "openssh" else 0)
    os.kill(up["pid"], signal.SIGKILL)
    eventually(lambda: all(_gone(pid) for pid in (up["pid"], *children)), what="the end of all processes")
    died = laptop.status(code=4)
    assert (died["state"], died["pid"], died["well"]) == ("died", None, False)
    # Up again straight from there, on the port that it had.
    port = up["forwards"][0]["local_port"]
    again = json.loads(laptop.stackctl("tunnel", "up", "box", "--json", "--port", f"webui={port}").stdout)
    assert again["pid"] != up["pid"]
    assert laptop.status()["well"]
    folders = [path.name for path in laptop.tmp.glob("stackctl-tunnel-*")]
    assert len(folders) == len(children) and all(f"-{again['pid']}-" in name for name in folders)
    # Killed once more: `down` clears what it left.
    os.kill(again["pid"], signal.SIGKILL)
    eventually(lambda: _gone(again["pid"]), what="the end of the process")
    assert "its state is cleared" in laptop.stackctl("tunnel", "down", "box").stderr
    assert "no tunnels" in laptop.stackctl("tunnel", "status").stderr
    assert "there is no tunnel 'box'" in laptop.stackctl("tunnel", "status", "box", code=1).stderr
    laptop.stackctl("tunnel", "up", "box")
    assert laptop.status()["well"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "stackctl.tunnel/0", "pid": 1}'])
def test_a_state_file_that_cannot_be_read_is_no_tunnel(laptop: Laptop, text: str) -> None:
    laptop.state_folder.mkdir(parents=True)
    (laptop.state_folder / "state.json").write_text(text)
    assert "no tunnels" in laptop.stackctl("tunnel", "status").stderr
    assert "was not up" in laptop.stackctl("tunnel", "down", "box").stderr
    if text == "[]":
        laptop.stackctl("tunnel", "up", "box")
        assert laptop.status()["well"]


def test_a_stale_state_of_a_living_stranger_kills_nobody(laptop: Laptop) -> None:
    """The pid in the file is another program's by now: only the holder of the lock is ever signalled."""
    up = json.loads(laptop.stackctl("tunnel", "up", "box", "--json").stdout)
    os.kill(up["pid"], signal.SIGKILL)
    eventually(lambda: _gone(up["pid"]), what="the end of the process")
    path = laptop.state_folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid()}))
    (laptop.state_folder / "lock").write_text(f"{os.getpid()}\n")
    assert laptop.status(code=4)["pid"] is None
    laptop.stackctl("tunnel", "down", "box")  # and we are still here


def test_a_start_that_fails_says_why_and_leaves_nothing(laptop: Laptop) -> None:
    laptop.sshd.stop()
    failed = laptop.stackctl("tunnel", "up", "box", code=1)
    assert "error: cannot reach 127.0.0.1:" in failed.stderr and "refused" in failed.stderr
    assert laptop.status(code=4)["state"] == "failed"
    laptop.stackctl("tunnel", "down", "box")
    assert "no tunnels" in laptop.stackctl("tunnel", "status").stderr


def test_the_first_start_refused_for_good_has_its_exit_code(laptop: Laptop) -> None:
    laptop.sshd.known_hosts.write_text("")
    refused = laptop.stackctl("tunnel", "up", "box", code=3)
    assert "the host key of [127.0.0.1]:" in refused.stderr
    assert "fix: compare the fingerprint" in refused.stderr


def test_a_taken_port_names_its_holder_and_another_can_be_had(laptop: Laptop) -> None:
    laptop.entry(forward={"webui": {"remote": laptop.page, "local": laptop.page}})
    taken = laptop.stackctl("tunnel", "up", "box", code=3)
    assert f"local port {laptop.page} for webui is taken by" in taken.stderr
    assert f"(pid {os.getpid()})" in taken.stderr
    laptop.stackctl("tunnel", "up", "box", "--free-ports")
    assert laptop.status()["forwards"][0]["local_port"] not in (0, laptop.page)


def test_a_service_that_is_gone_makes_the_tunnel_unwell(laptop: Laptop) -> None:
    laptop.entry(forward={"webui": {"remote": laptop.page}, "engine": {"remote": free_port()}})
    up = laptop.stackctl("tunnel", "up", "box")
    assert "warning: engine: nothing answers" in up.stderr
    status = laptop.status(code=4)
    assert status["state"] == "up"
    assert {probe["service"]: probe["alive"] for probe in status["probes"]} == {
        "webui": True,
        "engine": False,
    }
    eventually(
        lambda: "refused, the last: " in laptop.stackctl("tunnel", "status", code=4).stdout, 30, "the refusal"
    )


@pytest.mark.parametrize("hold", ["-1", "nan", "1e9", "inf"])
def test_a_hold_that_is_none_is_refused(laptop: Laptop, hold: str) -> None:
    assert "--hold" in laptop.stackctl("tunnel", "up", "box", f"--hold={hold}", code=2).stderr
    assert not laptop.state_folder.exists()


def test_a_mistake_in_hosts_yaml_is_told_with_its_line_and_a_suggestion(laptop: Laptop) -> None:
    laptop.hosts_file.write_text("box:\n  stack_fiel: x\nother:\n")
    err = laptop.stackctl("tunnel", "status", "box", code=2).stderr
    assert "hosts.yaml:2: box.stack_fiel: unknown key (did you mean 'stack_file'?)" in err
    laptop.hosts_file.write_text('"..": {ssh: box}\n')
    assert "'..' cannot be the name of a host" in laptop.stackctl("tunnel", "status", "box", code=2).stderr


def test_a_disk_that_is_full_does_not_end_the_tunnel(laptop: Laptop) -> None:
    laptop.stackctl("tunnel", "up", "box")
    before = laptop.status()
    limits = resource.prlimit(before["pid"], resource.RLIMIT_FSIZE)
    resource.prlimit(before["pid"], resource.RLIMIT_FSIZE, (0, limits[1]))
    laptop.sshd.drop_sessions()
    port = before["forwards"][0]["local_port"]
    eventually(lambda: not probe.probe("webui", "127.0.0.1", port).alive, what="the loss")
    eventually(lambda: probe.probe("webui", "127.0.0.1", port).alive, what="the tunnel again")
    resource.prlimit(before["pid"], resource.RLIMIT_FSIZE, limits)
    path = laptop.state_folder / "state.json"
    after = eventually(
        lambda: (found := json.loads(path.read_text()))["reconnects"] and found, what="its state"
    )
    assert (after["pid"], after["state"]) == (before["pid"], "up")
    assert any("could not be written" in note for note in after["notes"])


def test_mute_services_are_waited_for_at_the_same_time() -> None:
    with contextlib.ExitStack() as stack:
        mute = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        began = time.monotonic()
        found = probe.probe_all([[("x", *each.getsockname())] for each in mute], timeout=1.0)
        assert time.monotonic() - began < 4
    assert [[each.said for each in group] for group in found] == [["no answer within 1 s"]] * 8
