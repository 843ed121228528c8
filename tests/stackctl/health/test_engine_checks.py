"""The checks of the engine against a real engine with scripted models, broken in every way it can break."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from stackctl.health.model import Metric, Result, Status, ok
from stackctl.health.moment import Moment
from stackctl.health.plan import Plan
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import look
from tests.stackctl.health.support.servers import recording_server
from tests.support.engine import EngineServer, start_engine

NOW = Moment.now()


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """An engine of this module's own: its counters are compared before and after."""
    found = start_engine(model_store, tmp_path_factory.mktemp("health") / "engine.log")
    yield found
    found.stop()


def of(server: EngineServer, **values: Any) -> Plan:
    return plan(services={"engine": {"port": urlsplit(server.url).port}}, **values)


def generate(server: EngineServer, model: str, **more: Any) -> None:
    body = {"model": model, "prompt": "hi", "stream": False, "options": {"num_predict": 4}, **more}
    answer = server.client.post("/api/generate", body)
    assert answer.status == 200, answer.body


def unload(server: EngineServer, *models: str) -> None:
    for model in models:
        server.client.post("/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not server.client.get("/api/ps").json["models"]:
            return
        time.sleep(0.02)
    raise AssertionError("the models were not unloaded")


def test_a_running_engine_is_well_and_a_stopped_one_is_critical(server: EngineServer, tmp_path: Path) -> None:
    assert look(of(server), "engine") == ok("answers and is ready")
    other = start_engine(tmp_path / "models", tmp_path / "log")
    found = of(other)
    assert look(found, "engine").status is Status.OK
    other.process.send_signal(signal.SIGSTOP)
    try:
        frozen = look(plan_with_timeout(found, "500ms"), "engine")
        assert (frozen.status, "does not answer" in frozen.summary) == (Status.CRITICAL, True)
    finally:
        other.process.send_signal(signal.SIGCONT)
    assert look(found, "engine").status is Status.OK
    other.stop()
    gone = look(found, "engine")
    assert (gone.status, "refused" in gone.summary) == (Status.CRITICAL, True)


def plan_with_timeout(found: Plan, timeout: str) -> Plan:
    engine = found.service("engine")
    assert engine is not None
    checks = {name: {"timeout": timeout} for name in ("engine", "generation")}
    return plan(services={"engine": {"port": engine.port}}, health={"checks": checks})


def test_an_engine_that_is_not_ready_says_why() -> None:
    with recording_server() as fake:
        fake.answer = lambda seen: (
            (503, {}, b'{"status":"gpu lost: GPU-1"}') if seen.path == "/readyz" else (200, {}, b"{}")
        )
        found = plan(services={"engine": {"port": urlsplit(fake.url).port}})
        result = look(found, "engine")
    assert result.status is Status.CRITICAL
    assert "gpu lost: GPU-1" in result.summary


def test_desired_models_and_their_digests(server: EngineServer) -> None:
    digests = {model["name"]: model["digest"] for model in server.client.get("/api/tags").json["models"]}
    well = of(server, models=["chat", {"name": "tool", "digest": digests["tool:latest"]}])
    assert look(well, "models").status is Status.OK
    wrong = of(server, models=["chat", "nothere:7b", {"name": "tool", "digest": "0" * 64}])
    result = look(wrong, "models")
    assert result.status is Status.CRITICAL
    assert "2 of 3 wrong: nothere:7b is missing; tool:latest is " in result.summary
    assert look(of(server), "models").skipped


def test_resident_models_within_business_hours(server: EngineServer) -> None:
    unload(server, "chat")
    wanted: list[Any] = [{"name": "chat", "resident": True}]
    assert look(of(server, models=wanted), "resident").status is Status.WARNING
    never = {"business_hours": {"from": "00:00", "to": "00:00", "days": []}}
    assert look(of(server, models=wanted, health=never), "resident").summary == "outside business hours"
    generate(server, "chat")
    assert look(of(server, models=wanted), "resident").status is Status.OK
    assert look(of(server, models=["chat"]), "resident").skipped


def metric(result: Result, name: str) -> Metric:
    return next(found for found in result.metrics if found.name == name)


def test_generation_learns_its_usual_speed_and_notices_a_slow_one(server: EngineServer) -> None:
    unload(server, "chat")
    found = of(server)
    resting = look(found, "generation")
    assert resting.skipped and resting.for_now, "what was confirmed before stands"
    generate(server, "chat", keep_alive="20m")
    memory: dict[str, Any] = {}
    for _ in range(5):
        result = look(found, "generation", memory=memory, asked=True)
        assert result.status is Status.OK, result.summary
        assert result.memory is not None
        memory = result.memory
    assert metric(result, "tokens_per_second").value > 0
    (book,) = memory["speeds"].values()
    assert len(book["rate"]) >= 5
    (runner,) = server.runners()
    with slowed(runner):
        slow = look(found, "generation", memory=memory, asked=True)
    assert slow.status in (Status.WARNING, Status.CRITICAL), slow.summary
    assert "of the usual speed: first token after" in slow.summary
    assert slow.memory is not None
    assert slow.memory["speeds"] == memory["speeds"], "a slow look must not be learned from"
    deadline = time.monotonic() + 30
    while look(found, "generation", memory=slow.memory, asked=True).status is not Status.OK:
        assert time.monotonic() < deadline, "the usual speed did not come back"


@contextlib.contextmanager
def slowed(pid: int) -> Iterator[None]:
    """The process runs 2 ms, then stands still for half a second, and so on."""
    end = threading.Event()

    def pulse() -> None:
        while not end.is_set():
            os.kill(pid, signal.SIGSTOP)
            end.wait(0.5)
            os.kill(pid, signal.SIGCONT)
            end.wait(0.002)

    os.kill(pid, signal.SIGSTOP)
    thread = threading.Thread(target=pulse)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)


def test_the_probe_does_not_prolong_the_models_stay(server: EngineServer) -> None:
    generate(server, "chat", keep_alive="20m")
    before = server.client.get("/api/ps").json["models"][0]["expires_at"]
    look(of(server), "generation", asked=True)
    after = server.client.get("/api/ps").json["models"][0]["expires_at"]
    assert abs(_seconds(before) - _seconds(after)) < 3


def _seconds(text: str) -> float:
    from datetime import datetime

    whole, _, rest = text.partition(".")
    return datetime.fromisoformat(whole + rest.lstrip("0123456789").replace("Z", "+00:00")).timestamp()


def test_real_traffic_spares_the_probe(server: EngineServer) -> None:
    generate(server, "chat")
    first = look(of(server), "generation")
    assert first.memory is not None
    generate(server, "chat")
    second = look(of(server), "generation", memory=first.memory)
    assert second.summary == "users' own requests succeeded since the last look"
    third = look(of(server), "generation", memory=second.memory)
    assert "first token after" in third.summary


def test_a_frozen_runner_is_critical_and_recovers(server: EngineServer) -> None:
    generate(server, "chat")
    (runner,) = server.runners()
    found = plan_with_timeout(of(server), "1s")
    os.kill(runner, signal.SIGSTOP)
    try:
        frozen = look(found, "generation", asked=True)
        assert frozen.status is Status.CRITICAL
        assert "no answer in time" in frozen.summary
        assert look(found, "engine").status is Status.OK
    finally:
        os.kill(runner, signal.SIGCONT)
    assert look(of(server), "generation", asked=True).status is Status.OK


def test_latency_and_errors_count_from_the_last_look(server: EngineServer) -> None:
    found = of(server)
    first = {name: look(found, name) for name in ("latency", "errors", "queue")}
    assert {result.status for result in first.values()} == {Status.OK}
    for _ in range(3):
        generate(server, "chat")
    latency = look(found, "latency", memory=first["latency"].memory)
    assert "95% of first tokens within" in latency.summary
    assert metric(latency, "first_token_p95").value < 10
    errors = look(found, "errors", memory=first["errors"].memory)
    assert (errors.status, errors.summary.startswith("0 of ")) == (Status.OK, True)
    strict = of(server, health={"checks": {"latency": {"warn": "1ms", "crit": "2ms"}}})
    assert look(strict, "latency", memory=first["latency"].memory).status is Status.CRITICAL


def test_models_on_the_cpu_of_a_gpu_host_are_noticed(server: EngineServer) -> None:
    generate(server, "chat")
    needs = {"gpu": ok("1 x Stand-in")}
    result = look(of(server), "offload", needs=needs)
    assert result.status is Status.CRITICAL
    assert "chat:latest 0%" in result.summary
    assert look(of(server, gpu={"mode": "none"}), "offload", needs=needs).skipped
    # The GPU check is switched off, or knows nothing of this kind of GPU: the models are there all the same.
    off = {"checks": {"gpu": {"enabled": False}}}
    assert look(of(server, health=off), "offload").skipped
    assert look(of(server, health=off, gpu={"mode": "nvidia"}), "offload").status is Status.CRITICAL
    rocm = look(of(server, gpu={"mode": "rocm"}), "offload", needs={"gpu": ok("1 x Radeon")})
    assert rocm.status is Status.CRITICAL


@pytest.mark.parametrize("name", ["latency", "errors", "queue"])
def test_another_engine_without_our_metrics_is_skipped(name: str) -> None:
    with recording_server() as fake:
        found = plan(services={"engine": {"port": urlsplit(fake.url).port}})
        fake.answer = lambda seen: (200, {}, b"go_goroutines 7\n")
        assert look(found, name).skipped
        fake.answer = lambda seen: (404, {}, b"404 page not found")
        assert look(found, name).status is Status.UNKNOWN
