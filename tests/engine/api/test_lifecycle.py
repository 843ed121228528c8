"""The server as a process: how it starts, what it survives, and what it leaves behind."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from llm_engine.api.keys import add, remove
from llm_engine.api.metrics import MAX_KEYS, Metrics

from tests.engine.api.test_ollama_routes import HI
from tests.engine.runner.test_extras import png
from tests.support import extra_gguf
from tests.support.engine import EngineServer, add_model, start_engine

ENDLESS = {"model": "endless", "prompt": "go", "options": {"num_predict": 1_000_000}}


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true"
        time.sleep(0.01)
    return value


@pytest.fixture
def start(model_store: Path, tmp_path: Path) -> Iterator[Callable[..., EngineServer]]:
    """Starts engines of the test's own; they are ended with the test."""
    started: list[EngineServer] = []

    def make(*arguments: str, **env: str) -> EngineServer:
        server = start_engine(model_store, tmp_path / f"engine-{len(started)}.log", *arguments, **env)
        started.append(server)
        return server

    yield make
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)


def stream_in_thread(server: EngineServer, path: str, body: Any) -> tuple[threading.Thread, list[bytes]]:
    lines: list[bytes] = []

    def read() -> None:
        lines.extend(server.client.stream(path, body))

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: lines or running(server))
    return thread, lines


def running(server: EngineServer) -> list[Any]:
    requests: list[Any] = server.client.get("/api/status").json["requests"]
    return [entry for entry in requests if entry["state"] == "running"]


def test_sigterm_ends_streams_cleanly_and_leaves_no_child(start: Callable[..., EngineServer]) -> None:
    server = start(LLM_ENGINE_SHUTDOWN_GRACE="0.2s")
    streams = [
        stream_in_thread(server, "/api/generate", ENDLESS),
        stream_in_thread(
            server,
            "/v1/chat/completions",
            {"model": "endless", "messages": HI, "stream": True, "max_tokens": 10**6},
        ),
        stream_in_thread(
            server, "/v1/messages", {"model": "endless", "messages": HI, "stream": True, "max_tokens": 10**6}
        ),
    ]
    wait_for(lambda: len(running(server)) == 3)
    runners = server.runners()
    assert runners
    assert server.stop() == 0
    for thread, _ in streams:
        thread.join(10)
        assert not thread.is_alive()
    native, openai, anthropic = (lines for _, lines in streams)
    assert json.loads(native[-1]) == {"error": "the server is shutting down"}
    assert openai[-2].strip() == b"data: [DONE]"
    assert b"the server is shutting down" in openai[-4]
    assert b"event: error\n" in anthropic
    for pid in runners:
        assert not Path(f"/proc/{pid}").exists()


def test_a_runner_that_is_killed_is_reported_and_replaced(start: Callable[..., EngineServer]) -> None:
    server = start()
    thread, lines = stream_in_thread(server, "/api/generate", ENDLESS)
    wait_for(lambda: len(lines) > 2)
    os.kill(server.runners()[0], signal.SIGKILL)
    thread.join(20)
    error = json.loads(lines[-1])["error"]
    assert error.startswith("an error was encountered while running the model: ") and "SIGKILL" in error
    assert (
        server.client.post("/api/generate", {"model": "chat", "prompt": "x", "stream": False}).status == 200
    )
    text = server.client.get("/metrics").body.decode()
    assert 'llm_engine_runner_crashes_total{model="endless:latest"} 1.0' in text


def test_a_runner_that_is_killed_is_told_in_the_shape_of_each_api(
    start: Callable[..., EngineServer],
) -> None:
    """In the middle of their streams."""
    server = start(OLLAMA_NUM_PARALLEL="5")
    chat = {"model": "endless", "messages": HI, "stream": True, "max_tokens": 10**6}
    streams = [
        stream_in_thread(server, path, body)
        for path, body in (
            ("/api/chat", {"model": "endless", "messages": HI, "options": {"num_predict": 10**6}}),
            ("/v1/chat/completions", chat),
            ("/v1/completions", {**ENDLESS, "stream": True, "max_tokens": 10**6}),
            ("/v1/messages", chat),
            ("/v1/responses", {"model": "endless", "input": "go", "stream": True}),
        )
    ]
    wait_for(lambda: all(len(lines) > 6 for _, lines in streams))
    os.kill(server.runners()[0], signal.SIGKILL)
    for thread, _ in streams:
        thread.join(60)
        assert not thread.is_alive()
    native, *openai, anthropic, responses = (lines for _, lines in streams)
    error = json.loads(native[-1])["error"]
    assert "SIGKILL" in error

    def data(lines: list[bytes]) -> list[dict[str, Any]]:
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]

    for lines in openai:
        assert data(lines)[-1]["error"]["message"] == error
        assert data(lines)[-1]["error"]["code"] == "runner_crashed"
    assert b"event: error\n" in anthropic
    last = data(anthropic)[-1]
    assert (last["type"], last["error"]) == ("error", {"type": "api_error", "message": error})
    failed = data(responses)[-1]
    assert failed["type"] == "response.failed" and failed["response"]["error"]["message"] == error


def test_the_server_killed_takes_its_runners_with_it(start: Callable[..., EngineServer]) -> None:
    server = start()
    server.client.post("/api/generate", {"model": "chat"})
    (runner,) = server.runners()
    server.process.kill()
    server.process.wait(10)
    wait_for(lambda: not Path(f"/proc/{runner}").exists())


def test_hanging_up_stops_the_work(engine: EngineServer) -> None:
    connection, response = engine.client.open("POST", "/api/generate", ENDLESS)
    response.readline()
    response.close()
    connection.close()
    wait_for(lambda: not any(entry["model"] == "endless:latest" for entry in running(engine)))


def test_hanging_up_while_waiting_for_a_whole_answer(engine: EngineServer) -> None:
    import http.client

    connection = http.client.HTTPConnection(engine.client.host, engine.client.port)
    connection.request("POST", "/api/generate", json.dumps({**ENDLESS, "stream": False}))
    wait_for(lambda: any(entry["model"] == "endless:latest" for entry in running(engine)))
    connection.close()
    wait_for(lambda: not any(entry["model"] == "endless:latest" for entry in running(engine)))


def test_a_port_in_use_is_one_line(engine: EngineServer, model_store: Path, tmp_path: Path) -> None:
    port = str(engine.client.port)
    with pytest.raises(AssertionError) as caught:
        start_engine(model_store, tmp_path / "log", OLLAMA_HOST=f"127.0.0.1:{port}")
    taken = rf"listen tcp 127.0.0.1:{port}: bind: address already in use by \S+ \(pid \d+\)"
    assert re.search(taken, str(caught.value))
    assert "Traceback" not in str(caught.value)


def test_a_models_folder_that_is_a_file_is_one_pair_of_lines(chat_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        start_engine(chat_gguf, tmp_path / "log")
    assert f"error: models folder {chat_gguf}: Not a directory\nfix: llm-engine serve --models" in str(
        caught.value
    )


def test_request_ids_go_in_and_out_and_into_the_log(engine: EngineServer) -> None:
    answer = engine.client.request("GET", "/api/version", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    wait_for(lambda: any(line.get("request_id") == "mine-1" for line in engine.lines()))
    made = engine.client.request("GET", "/api/version", headers={"X-Request-Id": "bad id\t"})
    assert made.headers["x-request-id"].startswith("req_")


def test_logs_hold_no_prompt(engine: EngineServer) -> None:
    engine.client.post("/api/generate", {"model": "chat", "prompt": "my secret plan", "stream": False})
    assert "my secret plan" not in engine.log.read_text()


def test_keys_are_asked_for_and_reloaded(start: Callable[..., EngineServer], tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add(path, "alice")
    assert key not in path.read_text() and path.stat().st_mode & 0o077 == 0
    server = start("--keys-file", str(path))
    client = server.client
    assert client.get("/healthz").status == 200
    refused = client.get("/api/tags")
    assert refused.status == 401 and refused.json == {"error": "invalid or missing API key"}
    assert client.post("/v1/chat/completions", {}).json["error"]["type"] == "authentication_error"
    assert client.post("/v1/messages", {}).json["error"]["type"] == "authentication_error"
    assert client.request("GET", "/api/ps", headers={"Authorization": f"Bearer {key}"}).status == 200
    assert client.request("GET", "/api/ps", headers={"x-api-key": key}).status == 200
    assert client.request("GET", "/api/ps", headers={"x-api-key": key + "x"}).status == 401
    second = add(path, "bob")
    assert client.request("GET", "/api/ps", headers={"x-api-key": second}).status == 200
    remove(path, "bob")
    assert client.request("GET", "/api/ps", headers={"x-api-key": second}).status == 401
    path.write_text("broken line\n")
    assert client.request("GET", "/api/ps", headers={"x-api-key": key}).status == 200


def test_work_is_counted_by_the_name_of_the_key(start: Callable[..., EngineServer], tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add(path, "alice")
    client = start("--keys-file", str(path)).client
    mine = {"x-api-key": key}
    said = client.request(
        "POST", "/api/generate", {"model": "chat", "prompt": "x", "stream": False}, headers=mine
    )
    read, generated = said.json["prompt_eval_count"], said.json["eval_count"]
    client.request("POST", "/api/embed", {"model": "chat", "input": "x"}, headers=mine)
    assert client.get("/api/tags").status == 401
    text = client.request("GET", "/metrics", headers=mine).body.decode()
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if "_key_" in line and line[0] != "#")
    assert float(counts['llm_engine_key_tokens_total{key="alice",kind="completion"}']) == generated > 0
    assert float(counts['llm_engine_key_tokens_total{key="alice",kind="prompt"}']) > read > 0
    assert float(counts['llm_engine_key_requests_total{key="alice"}']) == 2
    assert float(counts['llm_engine_key_requests_total{key="-"}']) >= 1
    assert key not in text


def test_the_names_of_keys_in_the_metrics_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_KEYS + 5):
        metrics.spent(f"key{number}", prompt=1)
    text = metrics.render().decode()
    series = [line for line in text.splitlines() if line.startswith("llm_engine_key_tokens_total{")]
    assert len(series) == 2 * (MAX_KEYS + 1)
    assert 'llm_engine_key_tokens_total{key="other",kind="prompt"} 5.0' in text


def test_origins_and_hosts(engine: EngineServer) -> None:
    client = engine.client

    def get(**headers: str) -> int:
        return client.request("GET", "/api/version", headers=headers).status

    assert get(Origin="http://localhost:3000") == 200
    assert get(Origin="vscode-webview://abc") == 200
    evil = client.request("GET", "/api/version", headers={"Origin": "http://evil.example"})
    assert (evil.status, evil.body) == (403, b"")
    for good in ("localhost", "127.0.0.1:11434", "box.local", "10.0.0.5", "[::1]:11434", "gpu.internal"):
        assert get(Host=good) == 200, good
    for bad in ("evil.example", "localhost.evil.example:80"):
        assert get(Host=bad) == 403, bad
    preflight = client.request(
        "OPTIONS",
        "/api/chat",
        headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status == 204 and "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_extra_origins_and_body_limit(start: Callable[..., EngineServer]) -> None:
    server = start(OLLAMA_ORIGINS="https://*.example", LLM_ENGINE_MAX_BODY="1000")
    answer = server.client.request("GET", "/api/version", headers={"Origin": "https://a.example"})
    assert answer.status == 200
    long = server.client.post("/api/generate", {"model": "chat", "prompt": "x" * 2000})
    assert long.status == 413 and "1000 bytes" in long.json["error"]


def test_tls(start: Callable[..., EngineServer], tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    server = start("--tls-cert", str(cert), "--tls-key", str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def answers() -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{server.url}/healthz", context=context) as answer,
        ):
            return bool(answer.status == 200)
        return False

    wait_for(answers)


@pytest.mark.parametrize("broken", ["cert", "key"])
def test_a_certificate_that_cannot_be_used_is_one_pair_of_lines(
    model_store: Path, tmp_path: Path, broken: str
) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    (tmp_path / f"{broken}.pem").write_text("no PEM")
    with pytest.raises(AssertionError) as caught:
        start_engine(model_store, tmp_path / "log", "--tls-cert", str(cert), "--tls-key", str(key))
    assert f"error: TLS certificate {cert} with key {key}: " in str(caught.value)
    assert "fix: openssl x509" in str(caught.value) and "Traceback" not in str(caught.value)


def test_a_warning_when_others_can_reach_it_without_a_key(start: Callable[..., EngineServer]) -> None:
    server = start("--host", "0.0.0.0")
    assert any(line["level"] == "warning" and "WITHOUT ANY KEY" in line["msg"] for line in server.lines())


def test_preload_and_pin(start: Callable[..., EngineServer]) -> None:
    server = start(LLM_ENGINE_PRELOAD="fim,not-there", LLM_ENGINE_PIN="chat", OLLAMA_MAX_LOADED_MODELS="2")

    def names() -> set[str]:
        return {model["name"] for model in server.client.get("/api/ps").json["models"]}

    wait_for(lambda: names() >= {"chat:latest", "fim:latest"})
    rows = {row["name"]: row for row in server.client.get("/api/ps").json["models"]}
    assert rows["chat:latest"]["expires_at"] > "2300"
    assert (
        server.client.post("/api/generate", {"model": "tool", "prompt": "x", "stream": False}).status == 200
    )
    assert names() == {"chat:latest", "tool:latest"}
    assert server.client.get("/readyz").status == 200
    stopped = server.client.post("/api/generate", {"model": "tool", "keep_alive": 0})
    assert stopped.json["done_reason"] == "unload"
    (pinned,) = server.runners()
    os.kill(pinned, signal.SIGKILL)
    wait_for(lambda: set(server.runners()) - {pinned} and names() == {"chat:latest"})


def test_a_preloaded_model_is_as_its_first_request_wants_it(chat_gguf: Path, tmp_path: Path) -> None:
    add_model(tmp_path / "models", "narrow", chat_gguf, params={"num_ctx": 128})
    server = start_engine(tmp_path / "models", tmp_path / "log", LLM_ENGINE_PRELOAD="narrow")
    try:
        wait_for(
            lambda: [row["context_length"] for row in server.client.get("/api/ps").json["models"]] == [128]
        )
    finally:
        server.stop()


def test_requests_are_logged_when_asked_for(start: Callable[..., EngineServer], tmp_path: Path) -> None:
    """The body as it came, with a script that sends it again; readable by the server's user alone."""
    server = start(OLLAMA_DEBUG_LOG_REQUESTS="1", TMPDIR=str(tmp_path))
    (warning,) = [line for line in server.lines() if "prompts included" in line["msg"]]
    folder = Path(warning["folder"])
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
    body = {"model": "chat", "prompt": "my secret plan", "stream": False}
    answer = server.client.request("POST", "/api/generate", body, {"X-Request-Id": "../../$(id)"})
    assert answer.status == 200
    server.client.get("/api/tags")
    (document,), (script,) = folder.glob("*.json"), folder.glob("*.sh")
    assert json.loads(document.read_bytes()) == body
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    again = subprocess.run([script], capture_output=True, env=clean, timeout=30)
    assert json.loads(again.stdout)["response"] == answer.json["response"]
    assert len(list(folder.glob("*.json"))) == 2
    assert "my secret plan" not in server.log.read_text()


@pytest.mark.parametrize("debug", ["0", "1"])
def test_no_log_line_holds_a_prompt(start: Callable[..., EngineServer], tmp_path: Path, debug: str) -> None:
    """Good requests, refused ones, and one whose runner dies; at every level of the log."""
    server = start(OLLAMA_DEBUG=debug, TMPDIR=str(tmp_path))
    secret = "the-secret-of-the-prompt"
    chat = [{"role": "user", "content": secret}]
    for path, body in (
        ("/api/generate", {"model": "chat", "prompt": secret, "stream": False}),
        ("/api/chat", {"model": "chat", "messages": chat, "options": {"nope": secret}, "stream": False}),
        ("/api/chat", {"model": "nope", "messages": chat}),
        ("/api/generate", {"model": "chat", "prompt": secret, "template": "{{ .Broken", "stream": False}),
        ("/api/embed", {"model": "embed", "input": [secret]}),
        ("/v1/chat/completions", {"model": "chat", "messages": chat, "response_format": {"type": secret}}),
        ("/v1/responses", {"model": "chat", "input": secret}),
        ("/v1/messages", {"model": "chat", "max_tokens": 3, "messages": chat}),
        ("/v1/messages/count_tokens", {"model": "chat", "messages": chat}),
        ("/api/tokenize", {"model": "chat", "content": secret}),
    ):
        server.client.post(path, body)
    thread, lines = stream_in_thread(server, "/api/generate", {**ENDLESS, "prompt": secret})
    wait_for(lambda: len(lines) > 1)
    for runner in server.runners():
        with contextlib.suppress(ProcessLookupError):
            os.kill(runner, signal.SIGKILL)
    thread.join(20)
    assert secret not in server.log.read_text()
    assert not [path for path in tmp_path.rglob("*") if "request-logs" in path.name]


@pytest.mark.parametrize("everything", ["", "1"])
def test_no_log_line_holds_a_prompt_with_a_picture(
    endless_gguf: Path, tmp_path: Path, everything: str
) -> None:
    """Encoders have a log of their own, also where all that llama.cpp says is asked for; and what it says
    last is told to whoever else used the runner when it died."""
    store = tmp_path / "models"
    eyes = extra_gguf.projector(tmp_path / "eyes.gguf", text_width=128)
    add_model(store, "endless", endless_gguf, projector=eyes)
    server = start_engine(store, tmp_path / "log", OLLAMA_DEBUG="1", LLM_ENGINE_LLAMA_LOG=everything)
    try:
        secret = "the-secret-of-the-prompt"
        thread, lines = stream_in_thread(server, "/api/generate", ENDLESS)
        wait_for(lambda: len(lines) > 1)
        body = {
            "model": "endless",
            "prompt": secret,
            "images": [base64.b64encode(png(9)).decode()],
            "options": {"num_predict": 3},
            "stream": False,
        }
        assert server.client.post("/api/generate", body).status == 200
        for runner in server.runners():
            os.kill(runner, signal.SIGKILL)
        thread.join(20)
        other = [json.loads(line) for line in lines]
        assert "SIGKILL" in other[-1]["error"]
        assert secret not in str(other)
        wait_for(lambda: [line for line in server.lines() if line["msg"] == "runner ended"])
        assert secret not in server.log.read_text()
    finally:
        server.stop()


def test_an_idle_engine_sleeps(start: Callable[..., EngineServer]) -> None:
    """With a model loaded and nobody asking, server and runner wake a few times a second at most."""
    server = start()
    assert (
        server.client.post(
            "/api/generate", {**ENDLESS, "stream": False, "options": {"num_predict": 2}}
        ).status
        == 200
    )
    root = psutil.Process(server.process.pid)
    family = [root, *root.children(recursive=True)]
    assert len(family) == 2

    def wakeups() -> int:
        return sum(
            psutil.Process(thread.id).num_ctx_switches().voluntary
            for process in family
            for thread in process.threads()
        )

    seconds = 2.0
    wait_for(lambda: not running(server))
    before = wakeups()
    time.sleep(seconds)  # the measurement itself
    assert wakeups() - before <= 6 * seconds


def test_a_pin_holds_whoever_loads_the_model(chat_gguf: Path, tmp_path: Path) -> None:
    """One that is not there when the server starts, and one that a request has loaded with other options."""
    store = tmp_path / "models"
    add_model(store, "there", chat_gguf)
    server = start_engine(store, tmp_path / "log", LLM_ENGINE_PIN="there,later")

    def rows() -> dict[str, str]:
        return {row["name"]: row["expires_at"] for row in server.client.get("/api/ps").json["models"]}

    try:
        wait_for(lambda: "there:latest" in rows())
        add_model(store, "later", chat_gguf)
        wait_for(lambda: rows().get("later:latest", "") > "2300")
        asked = {"model": "there", "prompt": "x", "stream": False, "options": {"num_ctx": 8192}}
        before = set(server.runners())
        assert server.client.post("/api/generate", asked).status == 200
        (reloaded,) = set(server.runners()) - before
        os.kill(reloaded, signal.SIGKILL)
        wait_for(
            lambda: set(server.runners()) - before - {reloaded} and rows().get("there:latest", "") > "2300"
        )
    finally:
        server.stop()
