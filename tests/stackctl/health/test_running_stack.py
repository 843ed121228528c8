"""A whole stack, broken for real: what `stackctl health` says, exits with, sends, and how it comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.models.scripted import build

from tests.stackctl.health.support.servers import Recorder, recording_server
from tests.support.engine import add_model
from tests.support.stacks import PROGRAM, Folder, environment_for, free_port, wait_for

pytestmark = pytest.mark.timeout(300)


class Watched:
    """A stack on local processes, with the server that takes its messages."""

    def __init__(self, folder: Folder, recorder: Recorder) -> None:
        self.folder = folder
        self.recorder = recorder
        self.port = free_port()

    def write(self, **health: Any) -> None:
        self.folder.write(
            {
                "runtime": "local",
                "data_dir": str(self.folder.path / "data"),
                "services": {"engine": {"port": self.port}},
                "models": ["chat"],
                "health": {"fail_after": 2, "ok_after": 2, **health},
                "notify": {"channels": [{"type": "webhook", "url": self.recorder.url}]},
            }
        )

    def health(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        done = self.folder.run("health", "--json", *arguments)
        assert done.out, done.err
        report = done.json
        return done.code, {check["id"]: check for check in report["checks"]} | {"report": report}

    def told(self) -> list[str]:
        """The messages since the last call, as `check: status`."""
        found = [json.loads(seen.body) for seen in self.recorder.seen]
        self.recorder.seen.clear()
        return [f"{message['check']}: {message['status']}" for message in found]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("watched")
    here = root / "stack"
    here.mkdir()
    gguf = build(root / "chat.gguf", {None: "I am well."})
    add_model(here / "data" / "models", "chat", gguf)
    folder = Folder(here, environment_for(root))
    with recording_server() as recorder:
        watched = Watched(folder, recorder)
        watched.write()
        try:
            up = folder.run("up", timeout=280)
            assert up.code == 0, up.out + up.err
            yield watched
        finally:
            folder.run("down")


@pytest.fixture(autouse=True)
def fresh(stack: Watched) -> Iterator[None]:
    """Each test starts with the default settings, no memory and no messages."""
    stack.write()
    for left in (stack.folder.state / "health").glob("*.json"):
        left.unlink()
    stack.recorder.seen.clear()
    yield


def test_a_well_stack_is_silent_under_cron(stack: Watched) -> None:
    done = stack.folder.run("health", "--hard", "--quiet-ok")
    assert (done.code, done.out, done.err) == (0, "", "")
    code, checks = stack.health()
    assert (code, checks["report"]["status"]) == (0, "OK")
    line = stack.folder.run("health", "--nagios")
    assert line.code == 0
    assert line.out.startswith(f"OK: {stack.folder.name}: ")
    assert line.out.count("\n") == 1
    assert stack.told() == []


def test_a_killed_engine_is_confirmed_told_once_and_its_return_told_once(stack: Watched) -> None:
    stack.health()
    stack.folder.ok("exec", "engine", "true")
    stop_engine(stack)
    first, checks = stack.health()
    assert (first, checks["container.engine"]["status"]) == (2, "CRITICAL")
    assert checks["engine"]["blocked_by"] == "container.engine"
    quiet = [stack.folder.run("health", "--hard", "--quiet-ok").code for _ in range(4)]
    assert quiet == [2, 2, 2, 2]
    assert stack.told() == ["container.engine: CRITICAL"]
    start_engine_again(stack)
    codes = [stack.folder.run("health", "--hard", "--quiet-ok").code for _ in range(3)]
    assert codes == [2, 0, 0]
    assert stack.told() == ["container.engine: OK"]


def stop_engine(stack: Watched) -> None:
    from stackctl.runtime.local.address import socket_path

    ask(socket_path(stack.folder.state), {"op": "stop", "services": ["engine"]})


def start_engine_again(stack: Watched) -> None:
    from stackctl.runtime.local.address import socket_path

    ask(socket_path(stack.folder.state), {"op": "start", "services": ["engine"]})
    wait_for(lambda: stack.health("--check", "engine", "--no-record")[0] == 0, "the engine is back", 60)


def ask(path: Path, request: dict[str, Any]) -> bytes:
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert b'"error":' not in answer, answer
    return answer


def test_an_engine_that_dies_again_and_again_is_a_restart_loop(stack: Watched) -> None:
    stack.health()
    for count in range(1, 4):
        before = engine_status(stack)
        os.kill(before["id"], signal.SIGKILL)
        wait_for(lambda before=before: running_anew(stack, before), "the supervisor starts it again", 30)
        if count == 1:
            code, checks = stack.health("--check", "container.engine", "--no-record")
            assert (code, checks["container.engine"]["summary"]) == (
                1,
                "restarted 1 time since the last look",
            )
    code, checks = stack.health("--check", "container.engine")
    assert (code, "restart loop: 3 restarts" in checks["container.engine"]["summary"]) == (2, True)
    wait_for(lambda: stack.health("--no-record")[0] == 0, "it is well again", 60)


def engine_status(stack: Watched) -> dict[str, Any]:
    from stackctl.runtime.local.address import socket_path

    answer = json.loads(ask(socket_path(stack.folder.state), {"op": "status"}))
    (report,) = answer["services"]
    return {"id": report["pid"], "restarts": report["restarts"], "state": report["state"]}


def running_anew(stack: Watched, before: dict[str, Any]) -> bool:
    now = engine_status(stack)
    return bool(now["state"] == "running" and now["restarts"] > before["restarts"])


def test_a_stack_that_was_taken_down_on_purpose_is_not_a_failure(stack: Watched) -> None:
    stack.write(remedies={"enabled": True}, checks={"runtime": {"remedy": "restart engine", "fail_after": 1}})
    assert stack.health()[0] == 0
    stack.folder.ok("down")
    try:
        code, checks = stack.health()
        assert (code, checks["runtime"]["status"]) == (3, "UNKNOWN")
        assert "taken down on purpose; stackctl up brings it back" in checks["runtime"]["summary"]
        assert checks["container.engine"]["blocked_by"] == "runtime"
        quiet = stack.folder.run("health", "--hard", "--quiet-ok")
        assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
        assert stack.told() == []
        assert '"health.remedy"' not in (stack.folder.state / "audit.jsonl").read_text().split('"down"')[-1]
    finally:
        stack.folder.ok("up")
    assert stack.health()[0] == 0


def test_a_state_folder_that_is_not_ours_is_unknown_and_not_a_warning(stack: Watched, tmp_path: Path) -> None:
    (tmp_path / "stackctl").write_text("a file where the folder should be")
    folder = Folder(stack.folder.path, stack.folder.environment | {"XDG_STATE_HOME": str(tmp_path)})
    done = folder.run("health", "--nagios")
    assert (done.code, done.out.startswith("UNKNOWN: ")) == (3, True)
    assert "error: health could not run: " in done.err


def test_a_silence_holds_the_message_back_and_shows_in_the_report(stack: Watched) -> None:
    assert stack.folder.run("silence", "container", "--for", "1h", "--reason", "new disk").code == 0
    stop_engine(stack)
    for _ in range(3):
        code, checks = stack.health()
    assert (code, checks["container.engine"]["silenced"]) == (2, "new disk")
    assert stack.told() == []
    assert stack.folder.run("silence", "--end", "all").code == 0
    stack.health()
    assert stack.told() == ["container.engine: CRITICAL"]
    start_engine_again(stack)


def test_a_deleted_blob_is_found_and_named(stack: Watched) -> None:
    blobs = stack.folder.path / "data" / "models" / "blobs"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    aside = largest.rename(blobs.parent / "aside")
    try:
        code, checks = stack.health("--check", "store")
        assert (code, checks["store"]["status"]) == (2, "CRITICAL")
        assert "chat" in checks["store"]["summary"]
    finally:
        aside.rename(largest)
    assert stack.health("--check", "store")[0] == 0


def test_a_port_on_every_address_is_critical_at_once(stack: Watched) -> None:
    import socket

    with socket.socket() as outside:
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        outside.bind(("0.0.0.0", free_port()))
        outside.listen()
        port = outside.getsockname()[1]
        document = {"services": {"engine": {"port": port}}, "runtime": "local"}
        stack.folder.write(document, "other.yaml")
        done = stack.folder.run("-f", "other.yaml", "health", "--json", "--check", "ports", "--no-record")
    assert done.code == 2
    assert f"engine: 0.0.0.0:{port}" in done.json["checks"][0]["summary"]


def test_changed_settings_are_drift_once_they_run(stack: Watched) -> None:
    _, checks = stack.health("--check", "drift")
    assert checks["drift"]["status"] == "OK"
    current = stack.folder.state / "generations" / "current" / "processes.yaml"
    text = current.read_text()
    document = json.loads(text)
    document["services"]["engine"]["hash"] = "0" * 64
    current.write_text(json.dumps(document))
    try:
        _, checks = stack.health("--check", "drift")
        assert checks["drift"]["status"] == "WARNING"
        assert "engine: runs with other settings" in checks["drift"]["summary"]
    finally:
        current.write_text(text)


def test_two_runs_at_once_do_not_mix(stack: Watched) -> None:
    lock = stack.folder.state / "health" / "health.lock"
    lock.parent.mkdir(exist_ok=True)
    import fcntl

    stack.write(ping={"url": stack.recorder.url})
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        quiet = stack.folder.run("health", "--hard", "--quiet-ok")
        assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
        assert stack.health("--no-record")[0] == 0
    assert stack.recorder.seen == [], "a run that did not take place pings nobody"


def test_a_run_that_is_killed_leaves_a_state_that_the_next_can_use(stack: Watched) -> None:
    stop_engine(stack)
    stack.health()
    process = subprocess.Popen([PROGRAM, "health"], cwd=stack.folder.path, env=stack.folder.environment)
    wait_for(lambda: (stack.folder.state / "health" / "health.lock").exists(), "the run began")
    process.kill()
    process.wait()
    stack.health()
    stack.health()
    assert stack.told().count("container.engine: CRITICAL") == 1
    start_engine_again(stack)


def test_a_remedy_restarts_the_engine_and_is_on_the_record(stack: Watched) -> None:
    remedies = {"enabled": True, "min_gap": "1h", "max_per_day": 2}
    checks = {"container.engine": {"remedy": "restart engine"}}
    stack.write(remedies=remedies, checks=checks)
    stop_engine(stack)
    stack.health()
    stack.health()
    wait_for(lambda: stack.health("--check", "container.engine", "--no-record")[0] == 0, "the remedy worked")
    problem, mended = [json.loads(seen.body) for seen in stack.recorder.seen]
    assert (problem["kind"], problem["remedy"]) == ("problem", None), "people hear of it before it is mended"
    assert (mended["kind"], mended["remedy"]) == ("remedy", "restart engine: done")
    audit = stack.folder.state / "audit.jsonl"
    assert audit.read_text().count('"health.remedy"') == 1
    stop_engine(stack)
    for _ in range(4):
        stack.health()
    assert audit.read_text().count('"health.remedy"') == 1, "within min_gap it is not started again"
    start_engine_again(stack)


def test_a_stack_at_work_is_unknown_and_not_down(stack: Watched) -> None:
    import fcntl

    lock = stack.folder.state / "lock"
    stop_engine(stack)
    with lock.open("r+" if lock.exists() else "w+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        who = {
            "pid": os.getpid(),
            "command": "stackctl upgrade",
            "since": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        }
        held.seek(0)
        held.truncate()
        held.write(json.dumps(who))
        held.flush()
        code, checks = stack.health()
        assert (code, checks["container.engine"]["status"]) == (3, "UNKNOWN")
        assert "stackctl upgrade is at work" in checks["container.engine"]["summary"]
        held.seek(0)
        held.truncate()
    assert stack.told() == []
    start_engine_again(stack)


def test_a_bad_command_line_is_unknown_for_nagios_and_a_usage_error_for_people(stack: Watched) -> None:
    wrong = stack.folder.run("health", "--check", "engin")
    assert (wrong.code, "did you mean 'engine'?" in wrong.err) == (2, True)
    wrong = stack.folder.run("health", "--check", "engin", "--nagios")
    assert (wrong.code, wrong.out.startswith("UNKNOWN: ")) == (3, True)
    (stack.folder.path / "bad.yaml").write_text("health: {fail_after: often}\n")
    assert stack.folder.run("-f", "bad.yaml", "health").code == 2
    assert stack.folder.run("-f", "bad.yaml", "health", "--nagios").code == 3


def test_rechecking_confirms_within_one_run(stack: Watched) -> None:
    stack.write(recheck="50ms", fail_after=3)
    stop_engine(stack)
    code, checks = stack.health("--hard")
    assert (code, checks["container.engine"]["confirmed"]["failures"]) == (2, 3)
    assert stack.told() == ["container.engine: CRITICAL"]
    start_engine_again(stack)


def test_a_run_pings_and_writes_the_textfile(stack: Watched) -> None:
    textfile = stack.folder.path / "stackctl.prom"
    with recording_server() as pings:
        stack.write(textfile=str(textfile), ping={"url": f"{pings.url}/uuid"})
        assert stack.folder.run("health", "--hard", "--quiet-ok").code == 0
        assert pings.paths() == ["/uuid/start", "/uuid"]
        assert stack.health("--check", "engine")[0] == 0
        assert len(pings.seen) == 2, "a look at one check says nothing about the whole"
    text = textfile.read_text()
    assert f'stackctl_check_confirmed_status{{stack="{stack.folder.name}",check="engine"}} 0' in text
    done = stack.folder.run("health", "--hard", "--quiet-ok")
    assert (done.code, done.out, done.err) == (0, "", ""), "a ping service that is away fails nothing"
    stack.write(textfile=str(textfile / "within-a-file.prom"))
    done = stack.folder.run("health", "--hard", "--quiet-ok")
    assert (done.code, done.out) == (0, "")
    assert "within-a-file.prom cannot be written: File exists" in done.err, "nobody else would notice"


def test_a_test_message_reaches_every_channel_or_says_why_not(stack: Watched) -> None:
    done = stack.folder.ok("silence", "--test")
    assert done.out == "webhook: delivered\n"
    assert stack.told() == ["test: WARNING"]
    stack.recorder.answer = lambda seen: (500, {}, b"no")
    try:
        done = stack.folder.run("silence", "--test")
        assert (done.code, "webhook: not delivered: answered 500" in done.out) == (1, True)
    finally:
        stack.recorder.answer = lambda seen: (200, {}, b"OK")


def test_watching_prints_changes_and_tells_nobody(stack: Watched) -> None:
    stop_engine(stack)
    done = stack.folder.ok("watch", "--count", "2", "--interval", "0.5", "--check", "container")
    (line,) = done.out.splitlines()
    assert "container.engine OK -> CRITICAL: exited" in line
    assert stack.told() == []
    assert not (stack.folder.state / "health" / "health.json").exists()
    start_engine_again(stack)


def test_lists_explanations_and_wrong_silences(stack: Watched) -> None:
    assert "container.engine" in stack.folder.ok("health", "--list").out
    assert "what to do" in stack.folder.ok("health", "--explain", "gpu").out
    described = stack.folder.ok("health", "--explain", "gpu", "--json").json
    assert described["checks"][0]["remedy"] == "gpu-lost"
    assert "forgotten" in stack.folder.ok("health", "--forget", "generation").err
    for bad in (["engin"], ["engine", "--for", "soon"], ["engine", "--for", "99d"], ["--end", "nothing"]):
        done = stack.folder.run("silence", *bad)
        assert done.code in (1, 2) and done.err.startswith("error: "), done.err
    assert stack.folder.ok("silence", "--json").json == {"schema": "stackctl.silences/1", "silences": []}
