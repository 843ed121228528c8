"""The README's first screen, followed to the letter: `make up`, a chat with curl, `make down`.

It runs in a network namespace of its own with nothing but loopback: the default ports are free there, and a
first run that needed the network would fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare"),
]


class Namespace:
    """A network namespace that lives as long as one process in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        # The machine's own engine would be found through its socket, which no namespace hides.
        self.env = os.environ | {
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        }

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *argv],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def close(self) -> None:
        self.holder.communicate(timeout=10)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Namespace]:
    """A checkout as `make` sees it, but without writing into the real one."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in (".git", "stack.yaml"):
            (folder / entry.name).symlink_to(entry)
    namespace = Namespace(folder)
    yield namespace
    namespace.run("make", "down")
    namespace.close()


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        home = (process.info["environ"] or {}).get("XDG_STATE_HOME", "")
        if str(folder) in words or home.startswith(str(folder)):
            found.append(words)
    return found


def test_make_up_ends_in_a_chat_and_make_down_leaves_nothing(checkout: Namespace) -> None:
    up = checkout.run("make", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    said = up.stdout + up.stderr
    assert "local" in said, "says which runtime it chose"
    assert "http://127.0.0.1:11434" in up.stdout, "prints where the engine is"

    tags = json.loads(checkout.run("curl", "-sf", "http://127.0.0.1:11434/api/tags").stdout)
    assert len(tags["models"]) == 1
    name = tags["models"][0]["name"]
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello?"}], "stream": False})
    answer = checkout.run("curl", "-sf", "http://127.0.0.1:11434/api/chat", "-d", body)
    reply = json.loads(answer.stdout)["message"]["content"]
    assert reply.strip()
    assert reply.strip() in up.stdout, "the reply that `make up` printed is the model's"

    down = checkout.run("make", "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert processes_of(checkout.folder) == []
    assert checkout.run("curl", "-s", "http://127.0.0.1:11434/").returncode == 7, "nothing listens any more"


def test_a_second_make_up_changes_nothing(checkout: Namespace) -> None:
    assert checkout.run("make", "up").returncode == 0
    before = [p for p in processes_of(checkout.folder) if "serve" in p]
    pids = checkout.run("sh", "-c", "ss -ltnpH 'sport = :11434'").stdout
    again = checkout.run("make", "up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "demo says: " in again.stdout
    assert checkout.run("sh", "-c", "ss -ltnpH 'sport = :11434'").stdout == pids, (
        "the engine was not restarted"
    )
    assert [p for p in processes_of(checkout.folder) if "serve" in p] == before
