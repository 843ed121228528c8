"""How a vector is made of a text's tokens: as the model says, as its Modelfile says, as a request says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support import random_gguf
from tests.support.engine import EngineServer, add_model, start_engine

Vector = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("pooling")
    weights = random_gguf.build(folder / "weights.gguf")
    add_model(folder / "models", "plain", weights)
    add_model(folder / "models", "first", weights, params={"pooling": "cls"})
    server = start_engine(
        folder / "models", folder / "log", OLLAMA_CONTEXT_LENGTH="128", OLLAMA_KV_CACHE_TYPE="f32"
    )
    yield server
    server.stop()


def vector(server: EngineServer, text: str, model: str = "plain", **options: Any) -> Vector:
    """Not normalised: this route gives what the model computed."""
    answer = server.client.post("/api/embeddings", {"model": model, "prompt": text, "options": options})
    assert answer.status == 200, answer.body
    return np.array(answer.json["embedding"])


def test_each_kind_is_what_it_is_called(server: EngineServer) -> None:
    """In a model that looks back alone, a text's last token is that of any text that begins with it."""
    ends = [vector(server, text, pooling="last") for text in ("a", "ab", "abc")]
    first = vector(server, "abc", pooling="cls")
    assert np.allclose(first, vector(server, "x", pooling="cls"), atol=1e-3), "the token before each text"
    mean = vector(server, "abc", pooling="mean")
    assert np.allclose(mean, np.mean([first, *ends], axis=0), atol=1e-3)
    assert np.allclose(vector(server, "abc"), mean, atol=1e-5), "where nobody says anything"
    assert not np.allclose(mean, ends[-1], atol=1e-2)


def test_a_model_may_say_it(server: EngineServer) -> None:
    first = vector(server, "abc", "first")
    assert np.allclose(first, vector(server, "abc", pooling="cls"), atol=1e-5)
    assert np.allclose(vector(server, "abc", "first", pooling="mean"), vector(server, "abc"), atol=1e-5)


def test_a_kind_that_makes_no_single_vector_is_refused(server: EngineServer) -> None:
    for kind in ("none", "rank", "odd", 1):
        body = {"model": "plain", "input": "x", "options": {"pooling": kind}}
        answer = server.client.post("/api/embed", body)
        assert answer.status == 400 and "pooling" in answer.json["error"]
    made = server.client.post(
        "/api/create",
        {"model": "refused", "from": "plain", "parameters": {"pooling": "rank"}, "stream": False},
    )
    assert made.status == 400 and "one of mean, cls, last" in made.json["error"]
