"""`stackctl --host` against a real OpenSSH server: the far side is this same program with its own state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.config.hosts import HostConfig
from stackctl.hosts import bootstrap, releases
from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.hosts import Host
from tests.stackctl.tunnel.conftest import eventually
from tests.support.sshd import Sshd, free_port, keygen, public
from tests.support.terminal import Terminal

pytestmark = pytest.mark.peer
STACKCTL = str(Path(sys.executable).with_name("stackctl"))


class Far:
    """A server, a host entry for it, and the environment of the far side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.near = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "near-state"),
            "XDG_CONFIG_HOME": str(folder / "near-config"),
        }
        self.sshd = Sshd(folder / "sshd")
        self.program = folder / "far-stackctl"
        self.program.write_text(f'#!/bin/sh\nXDG_STATE_HOME={folder}/far-state exec {STACKCTL} "$@"\n')
        self.program.chmod(0o755)
        self.sshd.start()
        config = folder / "near-config" / "stackctl"
        config.mkdir(parents=True)
        entry = f"box: {{ssh_config: {self.sshd.ssh_config()}, stackctl: {self.program}}}\n"
        (config / "hosts.yaml").write_text(entry)

    def stackctl(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [STACKCTL, *words],
            env=self.near,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
        )

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [STACKCTL, *words], env=self.near, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder,
        )  # fmt: skip


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = Far(tmp_path)
    yield made
    made.sshd.thaw()
    made.sshd.stop()


def slow_procedure(far: Far) -> Path:
    """A page whose one step waits for a file: the test decides when it ends."""
    gate = far.folder / "gate"
    script = far.folder / "slow"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, time\n"
        "print('first line', flush=True); print('a warning', file=sys.stderr, flush=True)\n"
        f"gate = pathlib.Path({str(gate)!r})\n"
        "try:\n"
        "    while not gate.exists():\n"
        "        time.sleep(0.02)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted over here', flush=True); sys.exit(130)\n"
        "print('last line', flush=True)\n"
        "sys.exit(4)\n"
    )
    script.chmod(0o755)
    far.program.write_text(
        "#!/bin/sh\n"
        f"export XDG_STATE_HOME={far.folder}/far-state\n"
        f'if [ "$1" = session ]; then exec {sys.executable} {far.folder}/session.py "$@"; fi\n'
        f'exec {STACKCTL} "$@"\n'
    )
    # The session's program is replaced by the script: sessions are about any command that takes its time.
    (far.folder / "session.py").write_text(
        "from stackctl.hosts import sessions\n"
        "started = sessions.start\n"
        f"sessions.start = lambda session_id, argv: started(session_id, [{str(script)!r}])\n"
        "from stackctl.cli.main import main\n"
        "main()\n"
    )
    return gate


def test_output_exit_code_and_json_are_the_far_sides_own(far: Far) -> None:
    done = far.stackctl("--host", "box", "hosts-are-not-a-command")
    assert done.returncode == 2
    assert "no such command" in done.stderr
    listed = far.stackctl("--host", "box", "session", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    runs = json.loads(listed.stdout)["sessions"]
    assert [run["exit_code"] for run in runs if not run["running"]] == [2]
    assert far.stackctl("--host", "box", "--version").stdout == far.stackctl("--version").stdout


def test_words_arrive_as_they_were_typed(far: Far) -> None:
    words = ["config", "show", "a b", "$HOME", "'quoted'", "; echo injected", "*"]
    far.stackctl("--host", "box", *words)
    runs = json.loads(far.stackctl("--host", "box", "session", "list", "--json").stdout)["sessions"]
    assert runs[0]["argv"][-len(words) :] == words


def test_a_dropped_connection_is_picked_up_where_it_was(far: Far) -> None:
    gate = slow_procedure(far)
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None
    assert process.stdout.readline() == "first line\n"
    for _ in range(2):
        far.sshd.drop_sessions()
        assert process.stderr is not None
        eventually(lambda: "reconnecting" in process.stderr.readline(), what="a word about the loss")  # type: ignore[union-attr]
        eventually(lambda: len(far.sshd.pids()) > 1, what="a new connection")
    gate.touch()
    out, err = process.communicate(timeout=60)
    assert out == "last line\n"  # the first was read above, and came once
    assert process.returncode == 4
    assert err.count("a warning") == 0


def test_words_of_the_server_are_no_part_of_the_run(far: Far) -> None:
    """A banner stands on ssh's stderr at every login; the run's own lines there all come, and come once."""
    far.sshd.stop()
    (far.folder / "banner").write_text("*** Authorised users only. All activity is logged. ***\n")
    far.sshd.options["Banner"] = str(far.folder / "banner")
    far.sshd.start()
    gate = slow_procedure(far)
    script = far.folder / "slow"
    more = "for n in range(9): print('warning', n, file=sys.stderr, flush=True)\n"
    last = "sys.stderr.write('of windows\\r\\n')\n"
    script.write_text(script.read_text().replace("print('last line'", f"{more}{last}print('last line'"))
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "first line\n"
    eventually(lambda: process.stderr.readline() == "a warning\n", what="the first words")  # type: ignore[union-attr]
    far.sshd.drop_sessions()
    eventually(lambda: "reconnecting" in process.stderr.readline(), what="a word about the loss")  # type: ignore[union-attr]
    gate.touch()
    with process.stderr:  # as bytes: how the last line ends matters
        err = process.stderr.read()
    assert process.wait(60) == 4
    assert err.splitlines()[-10:] == [*(f"warning {n}" for n in range(9)), "of windows"]
    assert "a warning" not in err


@pytest.mark.parametrize("target", ["head", "full disk"])
def test_output_that_cannot_be_written_ends_the_following(far: Far, target: str) -> None:
    gate = slow_procedure(far)
    script = far.folder / "slow"
    script.write_text(script.read_text().replace("print('first line'", "print('first line ' * 20_000"))
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [STACKCTL, "--host", "box", "upgrade"], env=far.near, cwd=far.folder, text=True,
            stdout=full if target == "full disk" else subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    if process.stdout is not None:
        process.stdout.read(10)
        process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "stackctl --host box run --attach " in err
    if target == "full disk":
        assert "error: cannot write what the run says: no space left on device" in err
    assert process.returncode == 1
    gate.touch()  # the run goes on
    attached = far.stackctl("--host", "box", "run", "--attach")
    assert attached.returncode == 4 and attached.stdout.endswith("last line\n")


def test_what_is_no_longer_kept_is_left_out_and_said(far: Far) -> None:
    """The run said more than is kept while the connection was away; then it goes on at the right byte."""
    gate = slow_procedure(far)
    script, said = far.folder / "slow", far.folder / "said"
    flood = f"sys.stdout.write('flood\\n' * 100_000); sys.stdout.flush(); open({str(said)!r}, 'w').close()"
    script.write_text(script.read_text().replace("    while not gate", f"    {flood}\n    while not gate"))
    script.write_text(script.read_text().replace("try:\n", "input_gate = gate.with_name('go')\ntry:\n"
        "    while not input_gate.exists(): time.sleep(0.02)\n"))  # fmt: skip
    patched = "from stackctl.hosts import output\noutput.KEEP = output.SLACK = 8192\n"
    session = far.folder / "session.py"
    session.write_text(patched + session.read_text())
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "first line\n"
    far.sshd.stop()
    eventually(lambda: "reconnecting" in process.stderr.readline(), what="a word about the loss")  # type: ignore[union-attr]
    (far.folder / "go").touch()
    sessions = far.folder / "far-state/stackctl/sessions"
    eventually(lambda: said.exists() and list(sessions.glob("*/out.start")), what="a trimmed stream")
    (first,) = sessions.glob("*/out.start")
    eventually(lambda: int(first.read_text()) > 580_000, what="the end of the flood")
    left_out = int(first.read_text()) - len("first line\n")
    far.sshd.start()
    gate.touch()
    out, err = process.communicate(timeout=60)
    assert f"note: {left_out} bytes of earlier stdout are no longer kept\n" in err
    assert out.endswith("flood\nlast line\n")
    assert (
        len(out) == len("first line\n" + "flood\n" * 100_000 + "last line\n") - len("first line\n") - left_out
    )
    assert process.returncode == 4


def test_a_run_goes_on_without_us_and_is_attached_to_again(far: Far) -> None:
    gate = slow_procedure(far)
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None
    assert process.stdout.readline() == "first line\n"
    process.kill()
    process.communicate()
    attached = far.begin("--host", "box", "run", "--attach")
    assert attached.stdout is not None
    assert attached.stdout.readline() == "first line\n"
    gate.touch()
    out, err = attached.communicate(timeout=60)
    assert (out, attached.returncode) == ("last line\n", 4)
    assert "attaching to " in err
    # Also when it is over, and by its id.
    session = err.split("attaching to ")[1].split()[0]
    again = far.stackctl("--host", "box", "run", "--attach", session)
    assert (again.stdout, again.returncode) == ("first line\nlast line\n", 4)


def test_ctrl_c_reaches_the_run(far: Far) -> None:
    slow_procedure(far)
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None
    assert process.stdout.readline() == "first line\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "interrupted over here\n"
    assert process.returncode == 130
    assert "interrupting the run" in err


def test_ctrl_c_before_the_run_has_begun_keeps_it_from_beginning(far: Far) -> None:
    begun, gate, ended = (far.folder / name for name in ("begun", "gate", "ended"))
    far.program.write_text(
        f"#!/bin/sh\nexport XDG_STATE_HOME={far.folder}/far-state\n"
        'if [ "$1 $2" != "session run" ]; then exec ' + f'{STACKCTL} "$@"; fi\n'
        f"touch {begun}; while [ ! -e {gate} ]; do sleep 0.05; done\n"
        f'{STACKCTL} "$@"; touch {ended}\n'
    )
    process = far.begin("--host", "box", "config", "docs")
    eventually(begun.exists, what="the slow start")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "interrupted before it began" in err
    gate.touch()  # the start arrives now, late
    eventually(ended.exists, what="the late start's end")
    listed = json.loads(far.stackctl("--host", "box", "session", "list", "--json").stdout)["sessions"]
    assert [(run["argv"], run["exit_code"]) for run in listed if not run["running"]] == [([], 130)]


def test_a_connection_that_drops_before_a_word_was_said_is_picked_up(far: Far) -> None:
    gate = far.folder / "gate"
    slow_procedure(far)
    script = far.folder / "slow"
    script.write_text(f"#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.02; done\necho done\n")
    process = far.begin("--host", "box", "upgrade")
    sessions = far.folder / "far-state/stackctl/sessions"
    eventually(lambda: list(sessions.glob("*/pid")), what="the run")
    far.sshd.stop()
    assert process.stderr is not None
    for _ in range(2):  # the second loss is a refused connection, and no reason to give up either
        line = process.stderr.readline()
        assert "reconnecting" in line
        assert "run --attach" in line
    far.sshd.start()
    gate.touch()
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("done\n", 0), err


def test_ctrl_c_while_it_waits_to_reconnect_says_how_to_come_back(far: Far) -> None:
    gate = slow_procedure(far)
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "first line\n"
    far.sshd.stop()
    eventually(lambda: "reconnecting" in process.stderr.readline(), what="the wait")  # type: ignore[union-attr]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run could not be interrupted: cannot reach box" in err
    assert "stackctl --host box run --attach " in err
    gate.touch()


def test_a_host_that_accepts_and_closes_was_never_reached(far: Far) -> None:
    far.sshd.stop()
    with socket.create_server(("127.0.0.1", far.sshd.port)) as server:

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=refuse, daemon=True).start()
        done = far.stackctl("--host", "box", "status", timeout=20)
    assert done.returncode == 1
    assert "error: cannot reach box" in done.stderr
    assert "reconnecting" not in done.stderr


def test_what_reads_standard_input_or_never_ends_goes_with_the_connection(far: Far) -> None:
    far.program.write_text('#!/bin/sh\necho "$*: $(cat)"\n')
    for words in (["secrets", "set", "KEY"], ["watch"]):
        done = subprocess.run(
            [STACKCTL, "--host", "box", *words], env=far.near, input="a value", capture_output=True,
            text=True, timeout=60, cwd=far.folder,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{' '.join(words)}: a value\n"), done.stderr


def test_flags_before_the_command_do_not_hide_which_it_is(far: Far) -> None:
    far.program.write_text('#!/bin/sh\necho "$*: $(cat)"\n')
    flags = ["-v", "--debug", "--overlay", "prod"]
    done = subprocess.run(
        [STACKCTL, "--host", "box", *flags, "secrets", "set", "KEY"], env=far.near, input="a value",
        capture_output=True, text=True, timeout=60, cwd=far.folder,
    )  # fmt: skip
    assert done.stdout == "-v --debug --overlay prod secrets set KEY: a value\n", done.stderr
    local = far.stackctl("--host", "box", "--overlay", "prod", "tunnel", "up", "x")
    assert local.returncode == 2 and "'tunnel' is about this machine" in local.stderr
    far.program.write_text(f'#!/bin/sh\necho "$*" > {far.folder}/asked\n')
    far.stackctl("--host", "box", "--overlay", "prod", "run", "--attach", "abcdef1")
    assert (far.folder / "asked").read_text().startswith("session attach abcdef1 ")


def test_a_run_is_attached_to_on_the_host_itself(far: Far) -> None:
    far.stackctl("--host", "box", "session", "latest")
    there = {**far.near, "XDG_STATE_HOME": f"{far.folder}/far-state"}

    def attached(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [STACKCTL, "run", *words]
        return subprocess.run(argv, env=there, capture_output=True, text=True, timeout=60, cwd=far.folder)

    latest = attached("--attach")
    session = latest.stdout.strip()  # the run was of a command that prints its own id
    assert (latest.returncode, latest.stderr) == (0, f"attaching to {session}\n")
    assert attached("--attach", session).stdout == latest.stdout
    assert "there is no session 'abcdef1'" in attached("--attach", "abcdef1").stderr
    missing = attached()
    assert missing.returncode == 2 and "missing argument 'NAME'" in missing.stderr


def test_an_empty_host_is_not_this_machine(far: Far) -> None:
    for name in ("", " "):
        done = far.stackctl("--host", name, "config", "docs")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--host names no host" in done.stderr


def test_a_killed_run_is_not_taken_for_a_success(far: Far) -> None:
    slow_procedure(far)
    process = far.begin("--host", "box", "upgrade")
    assert process.stdout is not None
    process.stdout.readline()
    folder = next((far.folder / "far-state/stackctl/sessions").iterdir())
    runner = int(Path(f"/proc/{(folder / 'pid').read_text()}/stat").read_text().split()[3])
    for pid in (runner, int((folder / "pid").read_text())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was killed before it could end" in err


def test_a_host_without_stackctl_says_how_to_get_it(far: Far) -> None:
    far.program.unlink()
    done = far.stackctl("--host", "box", "status")
    assert done.returncode == 1
    assert "fix: stackctl host bootstrap box" in done.stderr
    # Not named, it is looked for there: in the PATH and where bootstrap puts it.
    far.sshd.stop()
    far.sshd.options["SetEnv"] = f"HOME={far.folder} PATH=/usr/bin:/bin"
    far.sshd.start()
    config = far.folder / "near-config/stackctl/hosts.yaml"
    config.write_text(f"box: {{ssh_config: {far.sshd.ssh_config()}}}\n")
    for words in (["status"], ["run", "--attach"]):
        done = far.stackctl("--host", "box", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: there is no stackctl on box\nfix: stackctl host bootstrap box\n"


def test_a_session_that_is_not_there_is_said_to_be(far: Far) -> None:
    for words in (["session", "attach", "abcdef1"], ["session", "interrupt", "abcdef1"]):
        done = far.stackctl(*words)
        assert done.returncode == 1
        assert "there is no session 'abcdef1' on this host" in done.stderr
    done = far.stackctl("--host", "box", "run", "--attach")
    assert "error: box: no command was ever run on this host" in done.stderr


def test_an_unreachable_host_and_an_unknown_key(far: Far) -> None:
    far.sshd.known_hosts.write_text("")
    done = far.stackctl("--host", "box", "status")
    assert done.returncode == 3
    assert "fix: stackctl tunnel trust box" in done.stderr
    far.sshd.stop()
    done = far.stackctl("--host", "box", "status")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


@pytest.mark.parametrize("words", [["--host", "-oProxyCommand=touch pwned", "status"], ["--host", "box"]])
def test_bad_use_is_refused(far: Far, words: list[str]) -> None:
    done = far.stackctl(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (far.folder / "pwned").exists()


def test_local_commands_are_not_for_another_host(far: Far) -> None:
    done = far.stackctl("--host", "box", "tunnel", "list")
    assert done.returncode == 2
    assert "leave --host out" in done.stderr


def test_sessions_reached(far: Far) -> None:
    """A server that allows no session says so; nothing hangs."""
    far.sshd.stop()
    far.sshd.options["MaxSessions"] = "0"
    far.sshd.start()
    done = far.stackctl("--host", "box", "status")
    assert done.returncode != 0
    assert "cannot reach box" in done.stderr


def test_hosts_side_by_side_and_the_slow_one_delays_nobody(far: Far, tmp_path: Path) -> None:
    frozen = Sshd(tmp_path / "frozen").start()
    frozen.freeze()
    path = tmp_path / "near-config/stackctl/hosts.yaml"
    frozen_config = frozen.ssh_config("ice")
    path.write_text(path.read_text() + f"ice: {{ssh_config: {frozen_config}}}\n")
    document = {"services": [{"name": "engine", "state": "running", "health": "healthy"}]}
    far.program.write_text(f"#!/bin/sh\necho '{json.dumps(document)}'\n")
    began = time.monotonic()
    process = far.begin("hosts", "status", "--timeout", "10")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert time.monotonic() - began < 10
    assert first.split()[:2] == ["box", "ok"]
    out, _ = process.communicate(timeout=60)
    assert out.split()[:2] == ["ice", "unreachable"]
    assert process.returncode == 4
    frozen.thaw()
    frozen.stop()


@pytest.mark.timeout(300)
def test_many_slow_hosts_delay_nobody(far: Far) -> None:
    mute = far.folder / "mute"
    mute.write_text("Host *\n    ProxyCommand sleep 60\n")
    entries = [f"ice{number}: {{ssh_config: {mute}}}\n" for number in range(33)]
    entries.append(f"zz: {{ssh: box, ssh_config: {far.sshd.ssh_config()}, stackctl: {far.program}}}\n")
    (far.folder / "near-config/stackctl/hosts.yaml").write_text("".join(entries))
    far.program.write_text("#!/bin/sh\necho '{\"services\": []}'\n")
    done = far.stackctl("hosts", "status", "--timeout", "6")
    assert done.stdout.split()[0] == "zz", done.stdout


def test_bootstrap_does_not_wait_for_what_hangs_over_there(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = far.folder / "programs"
    programs.mkdir()
    for name in ("nvidia-smi", "tar"):
        (programs / name).write_text("#!/bin/sh\nexec sleep 600\n")
        (programs / name).chmod(0o755)
    far.sshd.stop()
    far.sshd.options["SetEnv"] = f"HOME={far.folder} PATH={programs}:{os.environ['PATH']}"
    far.sshd.start()
    monkeypatch.setattr(bootstrap, "LOOK_LIMIT", 1)
    monkeypatch.setattr(bootstrap, "INSTALL_WAIT", 3.0)
    host = Host("box", HostConfig(ssh_config=far.sshd.ssh_config()))
    facts = bootstrap.look(host)
    assert facts.gpu == "" and facts.machine
    with pytest.raises(TunnelError, match=r"the installation on box did not end in 0\.05 minutes"):
        bootstrap._install(host, facts, b"")


def test_bootstrap_asks_for_a_passphrase_at_a_terminal(far: Far) -> None:
    key = keygen(far.folder / "locked", passphrase="open sesame")
    far.sshd.authorize(public(key))
    far.sshd.client_key = key
    far.sshd.ssh_config()
    environment = {**far.near, "SSH_AUTH_SOCK": "", "DISPLAY": ""}
    far.sshd.options["SetEnv"] = f"PATH={far.folder}"  # no Python there: that is all that is to be found out
    far.sshd.stop()
    far.sshd.start()
    with Terminal([STACKCTL, "host", "bootstrap", "box"], environment, columns=200) as terminal:
        terminal.expect("Enter passphrase for key")
        terminal.line("open sesame")
        terminal.expect("error: box has no Python 3.11 or newer")
    done = subprocess.run(
        [STACKCTL, "host", "bootstrap", "box"], env=environment, capture_output=True, text=True,
        start_new_session=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert f"fix: ssh-add {key}" in done.stderr


def test_bootstrap_installs_what_then_brings_a_stack_up(far: Far) -> None:
    home = far.folder / "home"
    home.mkdir()
    # The far user's home folder is another one for this test.
    far.sshd.stop()
    # The engine is found in its PATH; stackctl itself is not, until it is installed.
    engine = home / "engine"
    engine.mkdir()
    (engine / "llm-engine").symlink_to(Path(STACKCTL).with_name("llm-engine"))
    far.sshd.options["SetEnv"] = (
        f"HOME={home} PATH={engine}:/usr/local/bin:/usr/bin:/bin XDG_STATE_HOME={home}/state "
        f"XDG_DATA_HOME={home}/data XDG_CONFIG_HOME={home}/config"
    )
    far.sshd.start()
    stack = home / "stack.yaml"
    hosts = far.folder / "near-config/stackctl/hosts.yaml"
    hosts.write_text(f"box: {{ssh_config: {far.sshd.ssh_config()}, stack_file: {stack}}}\n")
    stack.write_text(f"name: boot\nruntime: local\nservices: {{engine: {{port: {free_port()}}}}}\n")
    done = far.stackctl("host", "bootstrap", "box", timeout=280)
    assert (home / ".local/bin/stackctl").exists(), done.stderr
    assert "copying and installing" in done.stderr
    version = far.stackctl("--host", "box", "--version")
    assert version.stdout == far.stackctl("--version").stdout, version.stderr
    try:
        up = far.stackctl("--host", "box", "up", timeout=120)
        assert up.returncode == 0, up.stderr
        status = json.loads(far.stackctl("--host", "box", "status", "--json").stdout)
        assert [(each["name"], each["state"]) for each in status["services"]] == [("engine", "running")]
        health = far.stackctl("--host", "box", "health", "--check", "engine", "--json")
        assert (health.returncode, json.loads(health.stdout)["schema"]) == (0, "stackctl.health/1")
        assert far.stackctl("--host", "box", "models", "list", "--json").returncode == 0
        tunnel = far.stackctl("tunnel", "up", "box", "--free-ports")
        assert "as the stack there says" in tunnel.stderr
        assert far.stackctl("tunnel", "status", "box").returncode == 0
        assert far.stackctl("hosts", "status").stdout.split()[:2] == ["box", "ok"]
        # The stack's own processes run from the release that started them.
        share = home / ".local/share/stackctl"
        assert (share / "current").readlink() == Path(".releases/1")
        assert releases.in_use([share / ".releases/1"])
    finally:
        far.stackctl("tunnel", "down", "--all")
        assert far.stackctl("--host", "box", "down").returncode == 0


def test_a_full_disk_is_said_to_be_one(far: Far) -> None:
    small = far.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here: needs root")
    try:
        with contextlib.suppress(OSError), (small / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        far.program.write_text(f'#!/bin/sh\nXDG_STATE_HOME={small} exec {STACKCTL} "$@"\n')
        done = far.stackctl("--host", "box", "status")
        assert done.returncode == 1
        place = small / "stackctl/sessions"
        assert done.stderr == (
            f"error: this host cannot keep what the run says in {place}: no space left on device\n"
            f"fix: df -h {place}\n"
        )
        far.near["XDG_STATE_HOME"] = str(small)
        done = far.stackctl("tunnel", "up", "box")
        assert done.returncode == 1
        assert f"cannot run from {small}/stackctl/tunnels/box: no space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)
