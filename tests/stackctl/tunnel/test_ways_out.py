"""Errors of a connection name a command that mends them, with either transport."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from stackctl.errors import StackctlError
from stackctl.tunnel.connect import Connector
from stackctl.tunnel.destination import parse
from stackctl.tunnel.diagnosis import diagnose
from stackctl.tunnel.errors import AuthError, HostKeyError
from stackctl.tunnel.sshconfig import resolve
from tests.stackctl.tunnel.conftest import MakeTunnel, eventually
from tests.stackctl.tunnel.test_background import STACKCTL, Laptop, laptop
from tests.support.sshd import Sshd, keygen, public
from tests.support.terminal import Terminal

__all__ = ["laptop"]
pytestmark = pytest.mark.peer
TRANSPORTS = pytest.mark.parametrize("transport", ["paramiko", "openssh"])


def refused(tunnel: MakeTunnel, transport: str, config: Path) -> StackctlError:
    made = tunnel(1, transport=transport, config=config, wait=False)
    made.wait("failed")
    assert isinstance(made.error[0], StackctlError)
    return made.error[0]


@TRANSPORTS
def test_an_unknown_key(sshd: Sshd, tunnel: MakeTunnel, transport: str) -> None:
    sshd.known_hosts.write_text("")
    error = refused(tunnel, transport, sshd.ssh_config())
    assert isinstance(error, HostKeyError)
    assert f"[127.0.0.1]:{sshd.port}" in error.what
    assert "stackctl tunnel trust test" in str(error.fix)  # the entry's name, not the host's


@TRANSPORTS
def test_a_changed_key(sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, transport: str) -> None:
    other = " ".join(public(keygen(tmp_path / "other")).split()[:2])
    sshd.write_known_hosts("# a line before it", f"[127.0.0.1]:{sshd.port} {other}")
    config = sshd.ssh_config()
    error = refused(tunnel, transport, config)
    shown = subprocess.run(["ssh-keygen", "-lf", f"{sshd.host_key()}.pub"], capture_output=True, text=True)
    assert "HAS CHANGED" in error.what and "@@" not in error.what
    assert shown.stdout.split()[1] in error.what, "the fingerprint that it has now"
    assert f"({sshd.known_hosts}:2)" in error.what
    forget, _, trust = str(error.fix).removeprefix("only if you know why: ").partition(" && ")
    assert trust == "stackctl tunnel trust test"
    subprocess.run(shlex.split(forget), check=True, capture_output=True)
    assert other not in sshd.known_hosts.read_text()


@TRANSPORTS
def test_an_encrypted_key(sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, transport: str) -> None:
    sshd.client_key = keygen(tmp_path / "locked", passphrase="open sesame")
    sshd.authorize(public(sshd.client_key))
    error = refused(tunnel, transport, sshd.ssh_config("box", "IdentityAgent none"))
    assert isinstance(error, AuthError)
    assert error.fix == f"ssh-add {sshd.client_key}"
    assert f"{sshd.client_key} (encrypted" in error.what or f"{sshd.client_key} is encrypted" in error.what


def test_an_encrypted_key_that_the_agent_has_is_not_what_is_missing(sshd: Sshd, tmp_path: Path) -> None:
    key = sshd.client_key = keygen(tmp_path / "locked", passphrase="open sesame")
    with tempfile.TemporaryDirectory(prefix="ag-") as folder:  # short: the path of a socket
        agent = f"{folder}/s"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
        try:
            eventually(lambda: Path(agent).exists(), what="the agent")
            config = sshd.ssh_config("box", f"IdentityAgent {agent}")
            said = ["me@box: Permission denied (publickey)."]
            assert diagnose(said, resolve(parse("box"), config)).fix == f"ssh-add {key}"
            with Terminal(["ssh-add", str(key)], {"SSH_AUTH_SOCK": agent, "DISPLAY": ""}) as terminal:
                terminal.expect("passphrase")
                terminal.line("open sesame")
                assert terminal.ends() == 0
            assert diagnose(said, resolve(parse("box"), config)).fix == f"ssh-copy-id -F {config} box"
        finally:
            process.kill()
            process.wait()


@TRANSPORTS
def test_a_key_that_the_host_does_not_have(sshd: Sshd, tunnel: MakeTunnel, transport: str) -> None:
    sshd.authorize()
    config = sshd.ssh_config()
    assert refused(tunnel, transport, config).fix == f"ssh-copy-id -F {config} box"


@TRANSPORTS
def test_the_key_of_a_jump_host(sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, transport: str) -> None:
    """It has no entry of its own: ssh asks, when it is told to, with the same configuration."""
    jump = Sshd(tmp_path / "jump").start()
    try:
        jump.known_hosts.write_text("")
        config = tmp_path / "config"
        config.write_text(
            jump.ssh_config("jump").read_text() + sshd.ssh_config("box", "ProxyJump jump").read_text()
        )
        fix = str(refused(tunnel, transport, config).fix)
        assert f"ssh -o StrictHostKeyChecking=ask -F {config} " in fix
        assert fix.endswith(" jump" if transport == "paramiko" else " box")
    finally:
        jump.stop()


def test_what_ssh_said_long_ago_does_not_hide_its_last_words(sshd: Sshd) -> None:
    settings = resolve(parse("me@box:2222"), sshd.ssh_config())
    lines = ["channel 3: open failed: administratively prohibited: open failed", "Broken pipe"]
    assert diagnose(lines[-1:], settings).what == "ssh stopped: Broken pipe"
    assert settings.typed == f"-F {sshd.folder}/ssh_config -p 2222 me@box"


def gpu(laptop: Laptop, known_hosts: Path) -> str:
    """An entry whose destination alone would lead elsewhere: another port, another configuration."""
    sshd = laptop.sshd
    config = laptop.folder / "config-of-gpu"
    config.write_text(
        f"UserKnownHostsFile {known_hosts}\nIdentityFile {sshd.client_key}\nIdentitiesOnly yes\n"
        f"User {sshd.user}\nGlobalKnownHostsFile none\n"
    )
    entry = {
        "ssh": f"127.0.0.1:{sshd.port}",
        "ssh_config": str(config),
        "forward": {"webui": {"remote": laptop.page}},
    }
    laptop.hosts_file.write_text(json.dumps({"gpu": entry}))
    made = subprocess.run(["ssh-keygen", "-lf", f"{sshd.host_key()}.pub"], capture_output=True, text=True)
    return made.stdout.split()[1]


def test_trust_asks_the_host_of_the_entry_and_adds_what_was_confirmed(laptop: Laptop) -> None:
    known = laptop.folder / "known"
    fingerprint = gpu(laptop, known)
    first = laptop.stackctl("tunnel", "up", "gpu", code=3)
    fix = next(line for line in first.stderr.splitlines() if line.startswith("fix: "))
    assert fix.endswith("stackctl tunnel trust gpu") and fingerprint in first.stderr
    unseen = laptop.stackctl("tunnel", "trust", "gpu", code=3)
    assert fingerprint in unseen.stdout and "there is no terminal to ask on" in unseen.stderr
    wrong = laptop.stackctl("tunnel", "trust", "gpu", "--fingerprint", "SHA256:no", code=3)
    assert "nothing was added" in wrong.stderr and not known.exists()
    with Terminal([STACKCTL, "tunnel", "trust", "gpu"], laptop.env, columns=200) as terminal:
        terminal.expect(fingerprint)
        terminal.expect("Add the key")
        terminal.line("n")
        assert terminal.ends() != 0
    assert not known.exists()
    laptop.stackctl("tunnel", "trust", "gpu", "--fingerprint", fingerprint)
    assert laptop.sshd.host_line() in known.read_text()
    assert "trusted already" in laptop.stackctl("tunnel", "trust", "gpu").stderr
    Connector(parse(f"127.0.0.1:{laptop.sshd.port}"), laptop.folder / "config-of-gpu", None).connect().close()


def test_trust_does_not_replace_a_key_and_says_what_it_cannot_write(laptop: Laptop) -> None:
    known = laptop.folder / "known"
    gpu(laptop, known)
    other = public(keygen(laptop.folder / "other")).split()[:2]
    before = f"[127.0.0.1]:{laptop.sshd.port} {' '.join(other)}\n"
    known.write_text(before)
    changed = laptop.stackctl("tunnel", "trust", "gpu", "--yes", code=3)
    assert "is changed" in changed.stderr and f"-f {known}" in changed.stderr
    assert known.read_text() == before
    gpu(laptop, known / "below-a-file")
    unwritten = laptop.stackctl("tunnel", "trust", "gpu", "--yes", code=1)
    assert "error: the key was not added: cannot write" in unwritten.stderr
