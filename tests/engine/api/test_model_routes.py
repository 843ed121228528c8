"""The routes that manage models, over HTTP: status codes, error texts, statuses in their order."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.models.create import create_from_gguf
from llm_engine.models.scripted import CHATML, build
from llm_engine.models.store import ModelStore

from tests.support.engine import EngineServer, start_engine
from tests.support.http import Answer, Client
from tests.support.models import SENTENCE

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("models")
    server = start_engine(folder / "models", folder / "log", HOME=str(folder))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store(server: EngineServer) -> ModelStore:
    return ModelStore(server.log.parent / "models")


@pytest.fixture
def client(server: EngineServer) -> Client:
    return server.client


@pytest.fixture(scope="module")
def plain_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a template that nobody knows."""
    path = tmp_path_factory.mktemp("plain") / "plain.gguf"
    return build(path, {None: SENTENCE}, chat_template="{{ messages[0].content }}")


@pytest.fixture(scope="module", autouse=True)
def model(store: ModelStore, plain_gguf: Path) -> str:
    """`base`, which the tests leave as it is."""
    made = create_from_gguf(
        store, "base", plain_gguf, system="Be brief.", params={"stop": ["<x>"], "num_ctx": 512}
    )
    return made.digest


def delete(client: Client, body: Any) -> Answer:
    return client.request("DELETE", "/api/delete", body)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def upload(client: Client, path: Path) -> str:
    data = path.read_bytes()
    digest = digest_of(data)
    assert client.request("POST", f"/api/blobs/{digest}", data).status in (200, 201)
    return digest


def statuses(answer: Answer) -> list[str]:
    return [line.get("status", line) for line in answer.lines]


# -- tags and show -----------------------------------------------------------------------------------------


def test_tags_of_an_empty_store(tmp_path: Path) -> None:
    server = start_engine(tmp_path / "models", tmp_path / "log", HOME=str(tmp_path))
    try:
        assert server.client.get("/api/tags").body == b'{"models":[]}'
    finally:
        server.stop()


def test_tags(client: Client, store: ModelStore, model: str) -> None:
    found = {item["name"]: item for item in client.get("/api/tags").json["models"]}
    item = found["base:latest"]
    assert item["model"] == item["name"]
    assert item["digest"] == model
    manifest = (store.root / "manifests/registry.ollama.ai/library/base/latest").read_bytes()
    assert item["digest"] == hashlib.sha256(manifest).hexdigest()
    kept = store.resolve("base").manifest.everything
    assert item["size"] == sum(layer.size for layer in kept)
    assert item["details"]["format"] == "gguf"
    assert item["details"]["family"] == "llama"
    assert item["details"]["families"] == ["llama"]
    assert item["details"]["parent_model"] == ""
    assert item["details"]["quantization_level"] == "F16"
    assert item["details"]["context_length"] > 0
    assert item["details"]["embedding_length"] > 0
    assert item["capabilities"] == ["completion"]


def test_tags_put_the_newest_first_and_leave_out_the_broken(client: Client, store: ModelStore) -> None:
    for name in ("older", "newer", "broken"):
        client.post("/api/copy", {"source": "base", "destination": name})
    folder = store.root / "manifests/registry.ollama.ai/library"
    os.utime(folder / "older/latest", (1_000_000_000, 1_000_000_000))
    os.utime(folder / "newer/latest", (2_000_000_000, 2_000_000_000))
    (folder / "broken/latest").write_bytes(b"{")
    try:
        names = [item["name"] for item in client.get("/api/tags").json["models"]]
        assert names.index("newer:latest") < names.index("older:latest") == len(names) - 1
        assert "broken:latest" not in names
        shown = client.post("/api/show", {"model": "broken"})
        assert (shown.status, "corrupt" in shown.json["error"]) == (500, True)
    finally:
        for name in ("older", "newer", "broken"):
            assert delete(client, {"model": name}).status == 200


def test_show(client: Client) -> None:
    shown = client.post("/api/show", {"model": "base"}).json
    assert shown["parameters"].splitlines() == [
        f"{'num_ctx':<30} 512",
        f'{"stop":<30} "<x>"',
    ]
    assert shown["system"] == "Be brief."
    assert "context_length" not in shown["details"]
    info = shown["model_info"]
    assert info["general.architecture"] == "llama"
    assert info["general.parameter_count"] > 0
    assert info["tokenizer.ggml.tokens"] is None
    assert not {"tokenizer.chat_template", "general.name"} & set(info)
    assert {"name", "type", "shape"} == set(shown["tensors"][0])
    assert shown["capabilities"] == ["completion"]
    assert not {"license", "messages", "renderer", "requires", "projector_info"} & set(shown)
    assert client.post("/api/show", {"name": "BASE:latest"}).json["modified_at"] == shown["modified_at"]
    verbose = client.post("/api/show", {"model": "base", "verbose": True}).json
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 100


def test_show_with_texts_of_the_request(client: Client) -> None:
    asked = {"model": "base", "system": "Other.", "template": "{{ .Prompt }}!", "options": {"top_k": 3}}
    shown = client.post("/api/show", asked).json
    assert (shown["system"], shown["template"]) == ("Other.", "{{ .Prompt }}!")
    assert f"{'top_k':<30} 3" in shown["parameters"].splitlines()
    assert "SYSTEM Other." in shown["modelfile"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/show", {}, 400, "model is required"),
        ("/api/show", {"model": "a b"}, 400, "invalid model name"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        ("/api/copy", {"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ("/api/copy", {"source": "", "destination": "x"}, 400, 'source "" is invalid'),
        ("/api/copy", {"source": "base", "destination": "a b"}, 400, 'destination "a b" is invalid'),
        ("/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ("/api/pull", {}, 400, "invalid model name"),
        ("/api/pull", {"model": "a b"}, 400, "invalid model name"),
        ("/api/push", {}, 400, "model is required"),
        ("/api/push", {"model": "a b"}, 400, "invalid model name"),
        ("/api/create", {}, 400, "invalid model name"),
        ("/api/create", {"model": "a b", "from": "base"}, 400, "invalid model name"),
    ],
)
def test_requests_that_are_refused(
    client: Client, path: str, body: dict[str, Any], status: int, error: str
) -> None:
    answer = client.post(path, body)
    assert (answer.status, answer.json) == (status, {"error": error})


# -- copy and delete ---------------------------------------------------------------------------------------


def test_copy_and_delete(client: Client, store: ModelStore, model: str) -> None:
    copied = client.post("/api/copy", {"source": "base", "destination": "lib/two:v1"})
    assert (copied.status, copied.body) == (200, b"")
    assert store.resolve("lib/two:v1").digest == model
    gone = delete(client, {"model": "lib/two:v1"})
    assert (gone.status, gone.body) == (200, b"")
    again = delete(client, {"name": "lib/two:v1"})
    assert (again.status, again.json) == (404, {"error": "model 'lib/two:v1' not found"})
    assert store.resolve("base").missing() == []


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "model is required"),
        ({"model": "a b"}, 400, 'name "a b" is invalid'),
        ({"model": "nope"}, 404, "model 'nope' not found"),
    ],
)
def test_deletions_that_are_refused(client: Client, body: dict[str, Any], status: int, error: str) -> None:
    answer = delete(client, body)
    assert (answer.status, answer.json) == (status, {"error": error})


# -- blobs -------------------------------------------------------------------------------------------------


def test_blobs(client: Client, store: ModelStore) -> None:
    data = b"some bytes of a blob" * 1000
    path = f"/api/blobs/{digest_of(data)}"
    assert client.request("HEAD", path).status == 404
    made = client.request("POST", path, data)
    assert (made.status, made.body) == (201, b"")
    assert client.request("HEAD", path).status == 200
    assert client.request("POST", path, data).status == 200
    assert (store.blobs.root / digest_of(data).replace(":", "-")).read_bytes() == data


def test_a_truncated_blob_is_not_there_and_can_be_uploaded_again(
    client: Client, store: ModelStore, tmp_path: Path
) -> None:
    path = build(tmp_path / "cut.gguf", {None: "cut"}, chat_template="{{ messages[0].content }}")
    model = create_from_gguf(store, "cut", path)
    assert model.model_path is not None
    route = f"/api/blobs/sha256:{model.model_path.name[7:]}"
    assert client.request("HEAD", route).status == 200
    os.truncate(model.model_path, 100)
    assert client.request("HEAD", route).status == 404
    refused = client.request("POST", "/api/create", {"model": "x", "files": {"m.gguf": route[11:]}})
    assert (refused.status, refused.json["error"]) == (400, f"blob {route[11:]} was not uploaded")
    assert "cut:latest" not in [item["name"] for item in client.request("GET", "/api/tags").json["models"]]
    assert client.request("POST", route, path.read_bytes()).status == 201
    assert client.request("HEAD", route).status == 200
    assert model.model_path.read_bytes() == path.read_bytes()
    assert delete(client, {"model": f"cut@{ABSENT}"}).status == 404
    assert delete(client, {"model": "cut"}).status == 200
    # Whoever was told that it is there may make a model of it now.
    made = client.request("POST", "/api/create", {"model": "cut", "files": {"m.gguf": route[11:]}})
    assert made.status == 200 and b'"success"' in made.body
    assert delete(client, {"model": "cut"}).status == 200
    assert not model.model_path.exists()


def test_blobs_with_other_bytes_than_their_name_says(client: Client, store: ModelStore) -> None:
    before = set(os.listdir(store.blobs.root))
    answer = client.request("POST", f"/api/blobs/{ABSENT}", b"other bytes")
    error = f'digest mismatch, expected "{ABSENT}", got "{digest_of(b"other bytes")}"'
    assert (answer.status, answer.json) == (400, {"error": error})
    assert set(os.listdir(store.blobs.root)) == before


@pytest.mark.parametrize("digest", ["sha256:123", "md5:" + "0" * 32, "sha256:" + "g" * 64, "..%2f..%2fetc"])
def test_blobs_whose_digest_is_none(client: Client, digest: str) -> None:
    answer = client.request("POST", f"/api/blobs/{digest}", b"x")
    assert answer.status in (400, 404)
    if answer.status == 400:
        assert answer.json == {"error": "invalid digest format"}
    assert client.request("HEAD", f"/api/blobs/{digest}").status == answer.status


def test_an_upload_that_breaks_off_leaves_nothing(client: Client, store: ModelStore) -> None:
    before = set(os.listdir(store.blobs.root))
    with socket.create_connection((client.host, client.port)) as sock:
        head = f"POST /api/blobs/{ABSENT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
        sock.sendall(head.encode() + b"x" * 3_000_000)
        deadline = time.monotonic() + 20
        while set(os.listdir(store.blobs.root)) == before and time.monotonic() < deadline:
            time.sleep(0.01)
    while set(os.listdir(store.blobs.root)) != before:
        assert time.monotonic() < deadline, set(os.listdir(store.blobs.root)) - before
        time.sleep(0.01)


# -- create ------------------------------------------------------------------------------------------------


def test_create_from_a_file(client: Client, store: ModelStore, plain_gguf: Path) -> None:
    digest = upload(client, plain_gguf)
    body = {"model": "made", "files": {"plain.gguf": digest}, "system": "A new text of this test."}
    answer = client.post("/api/create", body)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = statuses(answer)
    assert found[0] == "parsing GGUF"
    assert found[1] == f"using existing layer {digest}"
    assert found[2] == f"creating new layer {digest_of(b'A new text of this test.')}"
    assert found[3:] == ["writing manifest", "success"]
    again = statuses(client.post("/api/create", body))
    assert [text for text in again if text.startswith("creating")] == []
    whole = client.post("/api/create", {**body, "stream": False})
    assert (whole.status, whole.json) == (200, {"status": "success"})
    assert delete(client, {"model": "made"}).status == 200


def test_create_says_which_template_it_recognised(client: Client, tmp_path: Path) -> None:
    im = ("<|im_start|>", "<|im_end|>")
    path = build(tmp_path / "chatml.gguf", {None: "x"}, chat_template=CHATML, control_tokens=im)
    answer = client.post("/api/create", {"model": "known", "files": {"m.gguf": upload(client, path)}})
    assert statuses(answer)[:2] == ["parsing GGUF", "using autodetected template chatml"]
    assert client.post("/api/show", {"model": "known"}).json["template"].startswith("{{")
    assert delete(client, {"model": "known"}).status == 200


def test_create_from_a_model(client: Client, store: ModelStore) -> None:
    body = {
        "model": "child",
        "from": "base",
        "parameters": {"top_k": 5, "num_ctx": 256},
        "license": ["one", "two"],
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
        "requires": "0.14.0",
    }
    found = statuses(client.post("/api/create", body))
    assert "parsing GGUF" not in found
    assert found[-2:] == ["writing manifest", "success"]
    shown = client.post("/api/show", {"model": "child"}).json
    assert shown["details"]["parent_model"] == "base:latest"
    assert shown["license"] == "one\ntwo"
    assert shown["messages"] == body["messages"]
    assert shown["requires"] == "0.14.0"
    assert shown["system"] == "Be brief."
    assert store.resolve("child").params == {"num_ctx": 256, "stop": ["<x>"], "top_k": 5}
    assert delete(client, {"model": "child"}).status == 200
    assert store.resolve("base").missing() == []


def test_create_quantised(client: Client, store: ModelStore, plain_gguf: Path) -> None:
    digest = upload(client, plain_gguf)
    answer = client.post(
        "/api/create", {"model": "small", "files": {"plain.gguf": digest}, "quantize": "q8_0"}
    )
    found = statuses(answer)
    told = list(dict.fromkeys(found))
    assert told[:3] == ["parsing GGUF", "quantizing F16 model to Q8_0", "verifying conversion"]
    assert told[-2:] == ["writing manifest", "success"]
    progress = [line for line in answer.lines if line["status"].startswith("quantizing")]
    assert {line["digest"] for line in progress} == {"0" * 19}
    completed = [line.get("completed", 0) for line in progress]
    assert completed == sorted(completed) and progress[-1]["total"] >= completed[-1] > 0
    details = client.post("/api/show", {"model": "small"}).json["details"]
    assert details["quantization_level"] == "Q8_0"
    again = client.post("/api/create", {"model": "x", "from": "small", "quantize": "q4_0", "stream": False})
    error = "quantization is only supported for F16, BF16 and F32 models"
    assert (again.status, again.json) == (400, {"error": error})
    assert delete(client, {"model": "small"}).status == 200


def test_quantised_from_a_model(client: Client, store: ModelStore) -> None:
    body = {"model": "smaller", "from": "base", "quantize": "Q8_0", "parameters": {"top_k": 1}}
    found = list(dict.fromkeys(statuses(client.post("/api/create", body))))
    assert found[:2] == ["quantizing F16 model to Q8_0", "verifying conversion"]
    base, made = store.resolve("base"), store.resolve("smaller")
    assert (made.config.file_type, made.system) == ("Q8_0", base.system)
    assert made.params == {**base.params, "top_k": 1}
    assert made.model_path != base.model_path and base.missing() == []
    answer = client.post("/api/generate", {"model": "smaller", "prompt": "hi", "stream": False})
    assert answer.json["response"] == SENTENCE
    assert delete(client, {"model": "smaller"}).status == 200


def test_messages_of_a_model_keep_everything(client: Client, store: ModelStore) -> None:
    messages = [
        {"role": "user", "content": "What is this?", "images": ["aGk="]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "look", "arguments": {"at": "it"}}}],
        },
        {"role": "tool", "content": "a cat", "tool_name": "look", "tool_call_id": "c1"},
    ]
    body = {"model": "talked", "from": "base", "messages": messages, "stream": False}
    assert client.post("/api/create", body).json == {"status": "success"}
    assert store.resolve("talked").messages == messages
    assert client.post("/api/show", {"model": "talked"}).json["messages"] == messages
    assert delete(client, {"model": "talked"}).status == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"files": {}}, 400, "neither 'from' or 'files' was specified"),
        ({"files": {"/etc/passwd": ABSENT}}, 400, "file path must be relative"),
        ({"files": {"../m.gguf": ABSENT}}, 400, "file path must be relative"),
        ({"files": {"m.gguf": "sha256:12"}}, 400, "invalid digest format"),
        ({"files": {"m.gguf": ABSENT}}, 400, f"blob {ABSENT} was not uploaded"),
        ({"from": "a b"}, 400, "invalid model name"),
        ({"from": "base", "template": "{{ .x"}, 400, "template error: template: :1: unclosed action"),
        ({"from": "base", "parameters": {"foo": 1}}, 400, "unknown parameter 'foo'"),
        (
            {"from": "base", "parameters": {"num_ctx": "abc"}},
            400,
            'parameter "num_ctx" must be of type integer',
        ),
        ({"from": "base", "requires": "soon"}, 400, "requires must be a valid semver (e.g. 0.14.0)"),
        ({"from": "base", "license": 3}, 400, "license must be a string or a list of strings"),
    ],
)
def test_creations_that_are_refused(client: Client, body: dict[str, Any], status: int, error: str) -> None:
    answer = client.post("/api/create", {"model": "refused", **body})
    assert (answer.status, answer.json) == (status, {"error": error})
    assert client.post("/api/show", {"model": "refused"}).status == 404


def test_files_that_are_no_model(client: Client, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_bytes(b"this is no GGUF file" * 100)
    digest = upload(client, text)
    whole = client.post("/api/create", {"model": "refused", "files": {"m.gguf": digest}, "stream": False})
    assert whole.status == 400
    assert "error" in whole.json
    streamed = client.post("/api/create", {"model": "refused", "files": {"m.gguf": digest}})
    assert streamed.status == 200
    assert streamed.lines[0] == {"status": "parsing GGUF"}
    assert streamed.lines[-1] == {"error": whole.json["error"]}
    other = client.post(
        "/api/create", {"model": "refused", "files": {"m.safetensors": digest}, "stream": False}
    )
    assert other.status == 400
    assert "convert_hf_to_gguf.py" in other.json["error"]


def test_an_adapter_is_one(client: Client, plain_gguf: Path) -> None:
    digest = upload(client, plain_gguf)
    body = {"model": "refused", "from": "base", "adapters": {"a.gguf": digest}}
    whole = client.post("/api/create", {**body, "stream": False})
    assert (whole.status, whole.json) == (400, {"error": "a.gguf is not an adapter: it holds llama weights"})
