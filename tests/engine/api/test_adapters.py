"""LoRA adapters as a person uses them: several in a Modelfile, each as strong as a parameter says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_engine.models.modelfile import parse
from llm_engine.models.store import ModelStore

from tests.support import extra_gguf, random_gguf
from tests.support.engine import EngineServer, start_engine
from tests.support.http import Answer

MODELS = {
    "plain": "FROM ./weights.gguf",
    "both": "FROM ./weights.gguf\nADAPTER ./one/lora.gguf\nADAPTER ./two/lora.gguf",
    "weak": "FROM ./weights.gguf\nADAPTER ./one/lora.gguf\nADAPTER ./two/lora.gguf\n"
    "PARAMETER adapter_scale 0.25\nPARAMETER adapter_scale -1",
    "three": "FROM weak\nADAPTER ./one/lora.gguf\nADAPTER ./three.gguf",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    random_gguf.build(folder / "weights.gguf")
    for number, name in enumerate(("one", "two"), 1):
        (folder / name).mkdir()
        extra_gguf.lora(folder / name / "lora.gguf", seed=number, layer=number - 1)
    extra_gguf.lora(folder / "three.gguf", seed=3)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EngineServer]:
    server = start_engine(folder / "models", folder / "log", HOME=str(folder), OLLAMA_CONTEXT_LENGTH="128")
    for name, text in MODELS.items():
        make(server, folder, name, text)
    yield server
    server.stop()


def make(server: EngineServer, folder: Path, name: str, text: str) -> None:
    (folder / "Modelfile").write_text(text)
    program = Path(sys.executable).with_name("llm-engine")
    env = {**os.environ, "OLLAMA_HOST": server.url}
    subprocess.run([program, "create", name, "-f", folder / "Modelfile"], env=env, check=True)


def ask(server: EngineServer, model: str, **options: Any) -> Answer:
    exact = {"temperature": 0, "num_predict": 8, "ignore_eos": True, **options}
    body = {"model": model, "prompt": "abc", "raw": True, "stream": False, "logprobs": True, "options": exact}
    return server.client.post("/api/generate", body)


def said(server: EngineServer, model: str, **options: Any) -> list[float]:
    answer = ask(server, model, **options)
    assert answer.status == 200, answer.body
    return [round(token["logprob"], 2) for token in answer.json["logprobs"]]


def test_each_adapter_counts_as_much_as_its_scale(server: EngineServer) -> None:
    plain, both, weak = (said(server, name) for name in ("plain", "both", "weak"))
    assert plain != both != weak != plain
    assert said(server, "both", adapter_scale=[0, 0]) == plain, "turned off for a request"
    assert said(server, "both", adapter_scale=[0.25, -1]) == weak
    assert said(server, "both") == both, "and only for that one"
    assert said(server, "weak", adapter_scale=[1.0]) == both, "who is not spoken of counts whole"


def test_the_same_files_blended_differently_are_two_models(server: EngineServer) -> None:
    for name in ("both", "weak"):
        said(server, name)
    loaded = {model["name"] for model in server.client.get("/api/ps").json["models"]}
    assert {"both:latest", "weak:latest"} <= loaded


def test_adapters_join_those_of_the_base(server: EngineServer, folder: Path) -> None:
    store = ModelStore(folder / "models")
    assert [len(store.resolve(name).adapter_paths) for name in MODELS] == [0, 2, 2, 3]
    assert store.resolve("three").adapter_paths[:2] == store.resolve("weak").adapter_paths
    assert store.resolve("three").params["adapter_scale"] == [0.25, -1.0]
    weak, three = said(server, "weak"), said(server, "three")
    assert said(server, "three", adapter_scale=[0.25, -1, 0]) == weak != three


def test_what_show_writes_makes_it_again(server: EngineServer, folder: Path) -> None:
    text = server.client.post("/api/show", {"model": "weak"}).json["modelfile"]
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert [line[0] for line in lines[:3]] == ["FROM", "ADAPTER", "ADAPTER"]
    assert parse(text).parameters == {"adapter_scale": [0.25, -1.0]}
    make(server, folder, "again", text)
    store = ModelStore(folder / "models")
    assert store.resolve("again").adapter_paths == store.resolve("weak").adapter_paths


@pytest.mark.parametrize("scales", [[1, 1, 1], "1", [True], [1e39], [None]])
def test_scales_that_cannot_be_meant(server: EngineServer, scales: Any) -> None:
    answer = ask(server, "both", adapter_scale=scales)
    assert answer.status == 400 and "adapter_scale" in answer.json["error"]


def test_a_model_cannot_have_more_scales_than_adapters(server: EngineServer) -> None:
    body = {"model": "refused", "from": "both", "parameters": {"adapter_scale": [1, 2, 3]}, "stream": False}
    answer = server.client.post("/api/create", body)
    assert (answer.status, answer.json["error"]) == (400, "adapter_scale has 3 values for 2 adapters")
