"""What a person may have in their ssh configuration and environment, and still get the tunnel they meant."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.cli.tunnel import _ports
from stackctl.errors import UsageError
from stackctl.tunnel import sockets
from stackctl.tunnel.errors import PermanentTunnelError
from tests.stackctl.tunnel.conftest import MakeTunnel, echo, eventually
from tests.stackctl.tunnel.test_background import STACKCTL, Laptop, laptop
from tests.stackctl.tunnel.test_forwarding import MakeService
from tests.support.sshd import Sshd, free_port

__all__ = ["laptop"]
pytestmark = pytest.mark.peer


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"hello")
        return sock.recv(5) == b"hello"


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_forwards_and_commands_of_the_users_configuration_are_left_alone(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str
) -> None:
    taken, free = socket.create_server(("127.0.0.1", 0)), free_port()
    port = taken.getsockname()[1]
    config = sshd.ssh_config(
        "box",
        f"LocalForward 127.0.0.1:{port} 127.0.0.1:1",
        f"LocalForward 127.0.0.1:{free} 127.0.0.1:1",
        f"RemoteForward 127.0.0.1:{port} 127.0.0.1:1",
        "DynamicForward 127.0.0.1:1",
        "ExitOnForwardFailure yes",
        "RemoteCommand false",
        "RequestTTY force",
        "SessionType none",
        "ForkAfterAuthentication yes",
        "PermitLocalCommand yes",
        "LocalCommand touch %d/was-here",
        "LogLevel QUIET",
        "ControlPersist yes",
        "Tunnel no",
    )
    with taken:
        made = tunnel(service(echo).port, transport=transport, config=config)
        assert answers(made.port)
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", free)) != 0, "the user's own forward was opened as well"


def test_openssh_says_why_although_it_was_told_to_be_quiet(sshd: Sshd, tunnel: MakeTunnel) -> None:
    sshd.authorize()
    made = tunnel(1, transport="openssh", config=sshd.ssh_config("box", "LogLevel QUIET"), wait=False)
    made.wait("failed")
    assert "Permission denied" in str(made.error[0])


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("value", ["accept-new", "no"])
def test_a_new_key_is_added_and_a_changed_one_is_not(
    sshd: Sshd, tunnel: MakeTunnel, service: MakeService, transport: str, value: str
) -> None:
    config = sshd.ssh_config()
    text = config.read_text().replace("StrictHostKeyChecking yes", f"StrictHostKeyChecking {value}")
    config.write_text(text)
    sshd.known_hosts.write_text("")
    made = tunnel(service(echo).port, transport=transport, config=config)
    assert answers(made.port)
    assert sshd.host_line().split()[-1] in sshd.known_hosts.read_text()
    made.stop()
    other = Sshd(sshd.folder.parent / "other")
    sshd.write_known_hosts(f"[{sshd.host}]:{sshd.port} " + " ".join(other.host_line().split()[1:]))
    refused = tunnel(1, transport=transport, config=config, wait=False)
    refused.wait("failed")
    assert "changed" in str(refused.error[0]).lower()


def test_a_long_temporary_folder_is_no_obstacle(laptop: Laptop, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    runtime = tmp_path / ("r" * 120)
    runtime.mkdir()
    laptop.env |= {"TMPDIR": str(deep), "XDG_RUNTIME_DIR": str(runtime)}
    laptop.entry(transport="openssh", forward={"webui": {"remote": laptop.page}})
    laptop.stackctl("tunnel", "up", "box")
    assert laptop.status()["well"]


def test_where_no_folder_is_short_enough_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LONGEST", 20)
    with pytest.raises(PermanentTunnelError, match="no folder for ssh's sockets"):
        sockets.private_folder()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never says a word: a connect there lasts until its limit."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_down_ends_a_connect_that_would_last_a_minute(laptop: Laptop, silent: int, transport: str) -> None:
    config = laptop.sshd.ssh_config("box", "ConnectTimeout 60")
    config.write_text(config.read_text().replace(f"Port {laptop.sshd.port}", f"Port {silent}"))
    forward = {"webui": {"remote": laptop.page}}
    entry = {"ssh_config": str(config), "transport": transport, "forward": forward}
    laptop.hosts_file.write_text(json.dumps({"box": entry}))
    starting = subprocess.Popen(
        [STACKCTL, "tunnel", "up", "box"], env=laptop.env, cwd=laptop.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    lock = laptop.state_folder / "lock"
    eventually(lambda: lock.exists() and lock.read_text().strip(), what="the tunnel's process")
    pid = int(lock.read_text())
    eventually(lambda: _connected_to(pid, silent), what="the connect")
    assert "box: down" in laptop.stackctl("tunnel", "down", "box").stderr
    # One that had to be killed after ten seconds could neither say why nor write down its end.
    _, said = starting.communicate(timeout=10)
    assert starting.returncode == 1 and "taken down before it was up" in said
    assert json.loads((laptop.state_folder / "state.json").read_text())["state"] == "stopped"


def _connected_to(pid: int, port: int) -> bool:
    """Whether the process or a child of it has a connection to the port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":
            found.add(f"socket:[{fields[9]}]")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(found & set(_open_files(int(each))) for each in (pid, *children))


def _open_files(pid: int) -> list[str]:
    """What it has open: nothing of a child that has ended meanwhile, and no file that it has closed."""
    names = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(os.readlink(entry))
    return names


def test_a_second_up_with_other_options_is_refused_not_ignored(laptop: Laptop) -> None:
    up = json.loads(laptop.stackctl("tunnel", "up", "box", "--hold", "2", "--json").stdout)
    port, other = up["forwards"][0]["local_port"], free_port()
    assert up["hold"] == 2
    laptop.stackctl("tunnel", "up", "box", "--port", f"webui={port}", "--hold", "2")
    moved = laptop.stackctl("tunnel", "up", "box", "--port", f"webui={other}", code=1).stderr
    assert f"webui is on local port {port}, not {other}" in moved and "fix: stackctl tunnel down box" in moved
    held = laptop.stackctl("tunnel", "up", "box", "--hold", "5", code=1).stderr
    assert "it holds connections for 2 s, not 5" in held
    assert "fix: stackctl tunnel down box && stackctl tunnel up box --hold 5" in held
    assert laptop.status()["pid"] == up["pid"]


NO_STACK_FILE = "echo 'error: cannot read stack.yaml: no such file' >&2; exit 2"
NOTHING_UP = """echo '{"services": [{"name": "engine", "ports": []}]}'; exit 4"""


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (NO_STACK_FILE, "stackctl there says: cannot read stack.yaml: no such file"),
        (NOTHING_UP, "no service of the stack there is up"),
        (None, "no stackctl is there"),
    ],
)
def test_why_the_usual_ports_are_taken(laptop: Laptop, script: str | None, text: str) -> None:
    program = laptop.folder / "far-stackctl"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    laptop.entry(stackctl=str(program))
    up = laptop.stackctl("tunnel", "up", "box", "--free-ports")
    assert f"the usual ports, because {text}" in up.stderr


def test_open_brings_the_tunnel_up_and_starts_the_browser(laptop: Laptop) -> None:
    opened = laptop.folder / "opened"
    browser = laptop.folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    laptop.env["BROWSER"] = f"{browser} %s"
    first = laptop.stackctl("tunnel", "open", "box")
    address = f"http://{laptop.status()['forwards'][0]['local']}"
    assert first.stdout.splitlines()[-1] == address
    eventually(opened.exists, what="the browser")
    assert opened.read_text().strip() == address
    pid = laptop.status()["pid"]
    laptop.stackctl("tunnel", "open", "box")
    assert laptop.status()["pid"] == pid
    laptop.env["BROWSER"] = "false %s"
    none = laptop.stackctl("tunnel", "open", "box", code=1)
    assert "no browser could be started" in none.stderr and f"open {address}" in none.stderr
    laptop.stackctl("tunnel", "down", "box")
    laptop.entry(forward={"engine": {"remote": laptop.page}})
    other = laptop.stackctl("tunnel", "open", "box", code=1)
    assert "does not forward webui" in other.stderr


@pytest.mark.parametrize("word", ["webui", "webui=", "webui=²", "webui=-1", "webui=65536", "webui=80a"])
def test_what_is_no_port_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="write it as SERVICE=PORT"):
        _ports((word,))
