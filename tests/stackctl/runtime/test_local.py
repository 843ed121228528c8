"""Local processes under their supervisor: kept up, limited, healthy or not, stopped whole, and cleaned up
after."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stackctl.config import StackConfig
from stackctl.errors import StackctlError
from stackctl.render.processes import service_hash
from stackctl.runtime.base import ServiceStatus
from stackctl.runtime.generations import Generation, GenerationStore
from stackctl.runtime.local import usage
from stackctl.runtime.local.address import socket_path
from stackctl.runtime.local.runtime import LocalRuntime
from tests.support.stacks import free_port, wait_for

SERVE = """
import http.server as h, sys
h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
Spec = dict[str, Any]


def spec(code: str, *arguments: str, **more: Any) -> Spec:
    body: Spec = {
        "argv": [sys.executable, "-u", "-c", code, *arguments],
        "environment": {},
        "secrets": [],
        "secret_environment": {},
        "ports": [],
        "limits": {"memory": None, "cpus": None, "pids": 4096},
        "start_grace": 20,
        "stop_grace": 5,
        "health": {"argv": ["true"]},
        **more,
    }
    return {**body, "hash": service_hash(body)}


def web(port: int, **more: Any) -> Spec:
    return spec(SERVE, str(port), health={"http": f"http://127.0.0.1:{port}/"}, **more)


class Stack:
    def __init__(self) -> None:
        self.runtime = LocalRuntime(StackConfig(name="t"))
        self.store = GenerationStore("t")

    def up(self, **services: Spec) -> Generation:
        text = json.dumps({"services": services})
        made = self.store.write({"processes.yaml": text}, runtime="local", lock={}, meta={"digest": text})
        self.runtime.up(made)
        self.store.activate(made)
        return made

    def one(self, name: str) -> ServiceStatus:
        return self.runtime.status().service(name)

    def until(self, name: str, holds: Callable[[ServiceStatus], Any]) -> ServiceStatus:
        return wait_for(lambda: (one := self.one(name)) and holds(one) and one, f"{name}: {self.one(name)}")

    def supervisor(self) -> int:
        return int(self.runtime._ask({"op": "status"})["pid"])

    def text(self, name: str) -> str:
        return "\n".join(line.text for line in self.runtime.logs([name]))


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Stack()
    yield made
    made.runtime.down()


def test_up_healthy_and_down(stack: Stack) -> None:
    port = free_port()
    stack.up(a=web(port, ports=[{"host_ip": "127.0.0.1", "port": port}]))
    found = stack.until("a", lambda one: one.health == "healthy")
    assert found.state == "running" and found.ports[0].host_ip == "127.0.0.1"
    wait_for(lambda: (stack.one("a").memory_bytes or 0) > 1 << 20, "memory is measured")
    assert stack.runtime.status().drift == ()
    pid = int(found.id)
    stack.runtime.down()
    assert usage.start_time(pid) is None
    assert stack.one("a").state == "exited"


def test_only_what_changed_is_restarted(stack: Stack) -> None:
    ports = [free_port() for _ in range(3)]
    stack.up(a=web(ports[0]), b=web(ports[1]))
    before = {name: stack.until(name, lambda one: one.health == "healthy").id for name in ("a", "b")}
    stack.up(a=web(ports[0]), b=web(ports[2]))
    assert stack.until("b", lambda one: one.health == "healthy").id != before["b"]
    assert stack.one("a").id == before["a"]
    stack.up(a=web(ports[0]))
    assert stack.one("b").state == "absent"


def test_one_that_dies_is_started_again_and_its_last_words_are_kept(stack: Stack) -> None:
    stack.up(a=spec("print('out of tune'); raise SystemExit(7)"))
    found = stack.until("a", lambda one: one.restarts >= 1)
    assert found.exit_code in (7, None)
    assert "out of tune" in stack.text("a")
    assert "ended with 7; starting again in 1 s" in stack.text("a")


def test_a_program_that_is_not_there(stack: Stack) -> None:
    stack.up(a=spec("") | {"argv": ["/no/such/program"]})
    stack.until("a", lambda one: one.exit_code == 127)
    assert "cannot start /no/such/program: No such file or directory" in stack.text("a")


def test_memory_limit_kills_and_says_so(stack: Stack) -> None:
    eat = "import time\nheld = bytearray(b'x') * (80 << 20)\ntime.sleep(60)"
    stack.up(a=spec(eat, limits={"memory": 40 << 20, "cpus": None, "pids": 4096}))
    found = stack.until("a", lambda one: one.oom_killed)
    assert found.memory_limit == 40 << 20
    assert "its limit is 41943040: killed" in stack.text("a")


def test_process_limit(stack: Stack) -> None:
    fork = "import subprocess, time\nfor _ in range(30): subprocess.Popen(['sleep', '60'])\ntime.sleep(60)"
    stack.up(a=spec(fork, limits={"memory": None, "cpus": None, "pids": 16}))
    wait_for(lambda: "its limit is 16: killed" in stack.text("a"), "the process limit")


def test_cpu_limit_is_an_affinity(stack: Stack) -> None:
    code = "import os, time; print('cpus', len(os.sched_getaffinity(0))); time.sleep(60)"
    stack.up(a=spec(code, limits={"memory": None, "cpus": 1, "pids": 4096}))
    wait_for(lambda: "cpus 1" in stack.text("a"), "one cpu")


def test_cpu_limits_are_spread_over_the_processors(stack: Stack) -> None:
    """Two services of one processor each must not wait for each other on the first one."""
    limits = {"memory": None, "cpus": 0.5, "pids": 4096}
    count = min(3, len(os.sched_getaffinity(0)))
    stack.up(**{f"s{number}": spec("import time; time.sleep(60)", limits=limits) for number in range(count)})
    for number in range(count):
        stack.until(f"s{number}", lambda one: one.state == "running")
    bound = [tuple(stack.runtime.inspect(f"s{number}")["cpus"]) for number in range(count)]
    assert all(len(one) == 1 for one in bound) and len(set(bound)) == count


def test_the_ports_told_are_those_that_it_listens_on(stack: Stack) -> None:
    """Not those of the settings: this one takes an address and a port of its own choice."""
    asked, extra = free_port(), free_port()
    code = (
        "import socket, time\n"
        f"held = [socket.create_server(('0.0.0.0', {extra})), socket.create_server(('127.0.0.1', {asked}))]\n"
        f"held.append(socket.create_server(('::1', {asked}), family=socket.AF_INET6)); time.sleep(60)"
    )
    ports = [{"host_ip": "127.0.0.1", "port": asked}, {"host_ip": "127.0.0.1", "port": 1}]
    stack.up(a=spec(code, ports=ports, health={"tcp": extra}))
    found = stack.until("a", lambda one: one.health == "healthy" and len(one.ports) == 3)
    assert [(port.host_ip, port.host_port) for port in found.ports] == [
        ("127.0.0.1", asked),
        ("::1", asked),
        ("0.0.0.0", extra),
    ]
    stack.runtime.stop(["a"])
    assert stack.one("a").ports == ()


def test_an_answer_that_breaks_off_is_an_error_with_a_fix(stack: Stack) -> None:
    stack.runtime.state.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        path = socket_path(stack.runtime.state)
        listener.bind(str(path))
        listener.listen()
        for answer in (b'{"services": [{"na', b"", b"[1]\n"):
            thread = threading.Thread(target=_answer, args=(listener, answer))
            thread.start()
            with pytest.raises(StackctlError, match="broke off its answer to restart") as caught:
                stack.runtime.restart(["a"])
            assert caught.value.fix
            thread.join()
    path.unlink()


def _answer(listener: socket.socket, raw: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(raw)


def test_a_supervisor_that_hangs_is_taken_down_with_what_it_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(300)"
    )
    stack.up(a=spec(deaf))
    wait_for(lambda: "deaf" in stack.text("a"), "it runs")
    service, supervisor = int(stack.one("a").id), stack.supervisor()
    file = stack.runtime.state / "children.json"
    wait_for(lambda: str(service) in file.read_text(), "it is written down")
    os.kill(supervisor, signal.SIGSTOP)
    monkeypatch.setattr(stack.runtime, "patience", 0.2)
    stack.runtime.down()
    wait_for(lambda: usage.start_time(service) is None, "the deaf service ends")
    wait_for(lambda: usage.start_time(supervisor) is None, "the supervisor ends")
    stack.up(a=spec("import time; time.sleep(300)"))
    stack.until("a", lambda one: one.state == "running")


def test_a_full_disk_ends_no_service(stack: Stack) -> None:
    """Neither its log nor the list of processes can be written."""
    for name in ("logs/a.log", ".children.json"):
        path = stack.runtime.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("/dev/full")
    port = free_port()
    talk = "for _ in range(200): print('x' * 1000)\n"  # more than a pipe holds
    stack.up(a=spec(talk + SERVE, str(port), health={"http": f"http://127.0.0.1:{port}/"}))
    first = stack.until("a", lambda one: one.health == "healthy")
    stack.runtime.start(["a"])
    assert stack.one("a").id == first.id and stack.one("a").restarts == 0


def test_exec_says_what_it_runs_and_what_is_not_there(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    stack.up(a=spec("import time; time.sleep(300)"))
    stack.until("a", lambda one: one.state == "running")
    with caplog.at_level("INFO", "stackctl.command"):
        assert stack.runtime.exec_interactive("a", ["sh", "-c", "exit 4"]) == 4
    assert "sh -c 'exit 4'" in caplog.text
    with pytest.raises(StackctlError, match="cannot run no-such-program: No such file"):
        stack.runtime.exec_interactive("a", ["no-such-program"])
    stack.runtime.stop(["a"])
    with pytest.raises(StackctlError, match="not running"):
        stack.runtime.exec_interactive("a", ["true"])


def test_a_secret_that_is_gone_is_named(stack: Stack) -> None:
    stack.up(a=spec("", secret_environment={"PASS": "pass"}))
    wait_for(lambda: "its secret pass: No such file" in stack.text("a"), "the reason")


def test_everything_that_a_service_started_is_stopped_with_it(stack: Stack) -> None:
    code = "import subprocess, time; print('child', subprocess.Popen(['sleep', '300']).pid); time.sleep(300)"
    stack.up(a=spec(code))
    line = wait_for(
        lambda: next((one for one in stack.text("a").splitlines() if "child" in one), None), "the child"
    )
    child = int(line.split()[1])
    stack.runtime.stop(["a"])
    wait_for(lambda: usage.start_time(child) is None, "the grandchild ends")
    assert stack.one("a").state == "exited"
    assert any("stopped by hand" in drift for drift in stack.runtime.status().drift)
    stack.runtime.start(["a"])
    stack.until("a", lambda one: one.state == "running")


def test_one_that_ignores_sigterm_is_killed_after_its_grace(stack: Stack) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(300)"
    )
    stack.up(a=spec(code, stop_grace=0.3))
    wait_for(lambda: "deaf" in stack.text("a"), "it runs")
    stack.runtime.stop(["a"])
    assert "did not stop in 0.3 s: killed" in stack.text("a")


def test_a_killed_supervisor_takes_its_services_along_and_the_next_up_works(stack: Stack) -> None:
    port = free_port()
    stack.up(a=web(port))
    before = stack.until("a", lambda one: one.health == "healthy")
    os.kill(stack.supervisor(), signal.SIGKILL)
    wait_for(lambda: usage.start_time(int(before.id)) is None, "the kernel ends the service")
    assert stack.one("a").state == "exited"
    assert stack.runtime.status().drift == ("a: rendered, but not running",)
    stack.up(a=web(port))
    stack.until("a", lambda one: one.health == "healthy")


def test_unhealthy_only_after_three_failures_or_the_grace(stack: Stack) -> None:
    stack.up(a=spec("import time; time.sleep(300)", start_grace=0.5, health={"tcp": free_port()}))
    found = stack.until("a", lambda one: one.health == "unhealthy")
    assert "Connect call failed" in found.health_log[-1] or "refused" in found.health_log[-1]


def test_a_health_command_has_the_services_environment_and_nobody_elses(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_USER", "leaked")
    look = ["sh", "-c", 'echo "mine=$MINE users=$OF_THE_USER"; exit 1']
    stack.up(a=spec("import time; time.sleep(300)", environment={"MINE": "1234"}, health={"argv": look}))
    found = stack.until("a", lambda one: one.health_log)
    assert "mine=1234 users=\n" in found.health_log[-1]


def test_exec_tells_of_a_signal_as_a_shell_does(stack: Stack) -> None:
    stack.up(a=spec("import time; time.sleep(300)"))
    stack.until("a", lambda one: one.state == "running")
    assert stack.runtime.exec_interactive("a", ["sh", "-c", "kill -9 $$"]) == 137


def test_exec_sees_the_services_environment_and_no_secret(stack: Stack, tmp_path: Path) -> None:
    secrets = tmp_path / "stackctl" / "t" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "pass").write_text("open-sesame\n")
    code = "import os, time; print('has', os.environ['PASS']); time.sleep(300)"
    stack.up(a=spec(code, environment={"COLOUR": "blue"}, secret_environment={"PASS": "pass"}))
    wait_for(lambda: "has open-sesame" in stack.text("a"), "the secret arrives")
    done = stack.runtime.exec("a", ["env"])
    assert "COLOUR=blue" in done.stdout and "open-sesame" not in done.stdout
    assert "open-sesame" not in json.dumps(stack.runtime.inspect("a"))
    with pytest.raises(StackctlError, match="not running"):
        stack.runtime.exec("b", ["env"])


def test_logs_are_merged_in_time_and_cut_to_the_tail(stack: Stack) -> None:
    talk = "import sys, time\nfor i in range(3): print(sys.argv[1], i); time.sleep(0.05)\ntime.sleep(300)"
    stack.up(a=spec(talk, "alpha"), b=spec(talk, "beta"))
    wait_for(lambda: "alpha 2" in stack.text("a") and "beta 2" in stack.text("b"), "both have spoken")
    lines = list(stack.runtime.logs())
    assert [line.at for line in lines] == sorted(line.at for line in lines if line.at)
    assert [line.text for line in stack.runtime.logs(["a"], tail=1)] == ["alpha 2"]
    assert list(stack.runtime.logs(["a"], since="2999-01-01T00:00:00")) == []
