"""What `show --modelfile` prints makes the same model again, whatever the model holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from llm_engine.cli.client import Client
from llm_engine.cli.create import WEIGHTS, request_for
from llm_engine.errors import EngineError
from llm_engine.models.canonical import encode
from llm_engine.models.create import create_from_gguf
from llm_engine.models.manifests import CONFIG_TYPE, Layer, Manifest
from llm_engine.models.model import Model
from llm_engine.models.modelfile import Modelfile, parse
from llm_engine.models.names import Name
from llm_engine.models.parameters import KINDS, InvalidParameter, check
from llm_engine.models.scripted import build
from llm_engine.models.store import ModelStore

from tests.support.engine import EngineServer, start_engine
from tests.support.extra_gguf import lora, projector

HARD = 'x = """a"""\ny = "b"\nz'  # closes both kinds of quotes at the end of a line


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("round-trip")
    server = start_engine(folder / "models", folder / "log", HOME=str(folder))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store(server: EngineServer) -> ModelStore:
    return ModelStore(server.log.parent / "models")


@pytest.fixture(scope="module")
def weights(store: ModelStore, chat_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """Weights whose format is known by name, and weights without one; both stay in the store."""
    plain = build(tmp_path_factory.mktemp("plain") / "plain.gguf", {None: "x"})
    return [create_from_gguf(store, "known", chat_gguf), create_from_gguf(store, "plain", plain)]


def put(store: ModelStore, base: Model, what: dict[str, Any]) -> Model:
    """A model as Ollama may have written it: nothing of it is checked."""
    config = replace(base.config, **what.get("config", {})).encode()
    texts = [("template", what.get("template")), ("system", what.get("system"))]
    texts += [("license", text) for text in what.get("licenses", [])]
    blobs = [(kind, text.encode()) for kind, text in texts if text is not None]
    if what.get("params"):
        blobs.append(("params", encode(what["params"], sort_keys=True)))
    if what.get("messages"):
        blobs.append(("messages", encode(what["messages"])))
    layers = [Layer.of_kind(kind, store.blobs.add(data)[0], len(data)) for kind, data in blobs]
    digest, _ = store.blobs.add(config)
    manifest = Manifest.make(
        Layer(CONFIG_TYPE, digest, len(config)), (*base.manifest.of_kind("model"), *layers)
    )
    return store.put(Name.parse("first"), manifest)


def facts(model: Model) -> dict[str, Any]:
    """What makes two models the same one."""
    params = dict(model.params)
    for name, value in params.items():
        try:
            params[name] = check(name, value)
        except InvalidParameter:
            continue
    return {
        "files": {kind: model.paths(kind) for kind in ("model", "projector", "adapter", "draft")},
        "template": model.template or "",
        "system": model.system,
        "licenses": [text for text in model.licenses if text],
        "params": params,
        "messages": model.messages,
        "config": model.config,
    }


def shown(server: EngineServer, name: str) -> str:
    answer = server.client.post("/api/show", {"model": name})
    assert answer.status == 200, answer.json
    return str(answer.json["modelfile"])


def made_again(server: EngineServer, store: ModelStore, modelfile: Modelfile) -> Model:
    client = Client(server.url)
    body = request_for(client, modelfile, store.root) | {"model": "second", "stream": False}
    assert client.json("POST", "/api/create", body) == {"status": "success"}
    return store.resolve("second")


_part = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)


@given(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "some-org/", "hf.co/me/"]),
        _part,
        st.just("") | _part.map(":".__add__),
    )
)
@example("llama3.2")
@example("llama3.2:latest")
@example("some-org/qwen2.5")
@example("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M")
def test_from_takes_every_name_of_a_model(name: str) -> None:
    assume(not name.endswith(WEIGHTS))
    Name.parse(name)
    request = request_for(Client("http://127.0.0.1:9"), parse(f"FROM {name}"), Path("/nonexistent"))
    assert request["from"] == name


@pytest.mark.parametrize("file", ["./llama3.2", "/a/llama3.2", "x.gguf", "x.GGUF", "w.safetensors", "~/m"])
def test_from_a_file_that_is_not_there_is_refused(file: str) -> None:
    with pytest.raises(EngineError, match="no such file"):
        request_for(Client("http://127.0.0.1:9"), parse(f"FROM {file}"), Path("/nonexistent"))


_line = st.sampled_from(
    ['"', '"""', 'a"', '"b', "{{ .Prompt }}", "<|x|>", "# no", " blank ", "é🙂", "", "\t"]
)
_words = st.text(max_size=20).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
_text = st.lists(_line, max_size=5).map("\n".join) | _words | st.just(HARD)
_number = st.integers(-(2**62), 2**62) | st.floats(-1e30, 1e30) | st.booleans()
_value = (
    _number | _text | st.lists(_text, max_size=3) | st.none() | st.dictionaries(_words, _number, max_size=2)
)
_valid = {
    "int": st.integers(-1, 100_000),
    "float": st.floats(-1e9, 1e9, width=32),
    "bool": st.booleans(),
    "string": _text.filter(bool),
    "list": st.lists(_text, max_size=3),
    "floats": st.lists(st.floats(-1e9, 1e9, width=32), max_size=2),
}
_known = st.sampled_from(sorted(KINDS)).flatmap(lambda name: st.tuples(st.just(name), _valid[KINDS[name]]))
_unchecked = st.tuples(st.sampled_from([*sorted(KINDS), "f16_kv", "tfs_z", "foo", "Stop", "a b"]), _value)
_params = st.lists(_known | _known | _known | _unchecked, max_size=4).map(dict)
_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "user", "assistant", "tool"]), "content": _text},
    optional={"thinking": st.just("hm")},
)
_config = st.fixed_dictionaries(
    {},
    optional={
        "renderer": st.sampled_from(["qwen3-coder", "a b"]),
        "parser": st.just("harmony"),
        "requires": st.sampled_from(["0.14.0", "v1", "soon"]),
        "base_name": st.just("base"),
        "capabilities": st.just(("tools",)),
    },
)
_models = st.fixed_dictionaries(
    {},
    optional={
        "template": _text,
        "system": _text,
        "licenses": st.lists(_text, max_size=2, unique=True),
        "params": _params,
        "messages": st.lists(_message, max_size=3),
        "config": _config,
    },
)


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 1), what=_models)
@example(which=0, what={})
@example(which=0, what={"params": {"stop": []}})
@example(which=1, what={"params": {"foo": 1, "num_ctx": "abc", "stop": "x", "f16_kv": True}})
@example(which=1, what={"messages": [{"role": "tool", "content": "sunny"}], "system": "s"})
@example(which=1, what={"system": HARD, "template": "{{ .Prompt }}", "licenses": ["L"]})
@example(which=0, what={"params": dict.fromkeys(sorted(KINDS), HARD)})
@example(which=0, what={"params": {name: [HARD] for name in sorted(KINDS)}})
@example(which=0, what={"template": "{{ broken"})
@example(which=0, what={"config": {"requires": "soon", "capabilities": ("tools",)}})
def test_any_model(
    server: EngineServer, store: ModelStore, weights: list[Model], which: int, what: dict[str, Any]
) -> None:
    first = put(store, weights[which], what)
    text = shown(server, "first")
    second = made_again(server, store, parse(text))
    assert facts(second) == facts(first), text
    assert parse(shown(server, "second")).commands[1:] == parse(text).commands[1:]


def test_what_can_be_said_names_the_files_as_ollama_does(
    server: EngineServer, store: ModelStore, weights: list[Model]
) -> None:
    model = put(store, weights[1], {"system": 'two\n"lines"', "params": {"stop": ["a"], "top_p": 0.5}})
    assert shown(server, "first").splitlines() == [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        "# FROM first:latest",
        "",
        f"FROM {model.model_path}",
        'SYSTEM """two',
        '"lines""""',
        "PARAMETER stop a",
        "PARAMETER top_p 0.5",
    ]


def test_what_cannot_be_said_is_taken_over_by_name(
    server: EngineServer, store: ModelStore, weights: list[Model]
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "tool", "content": "sunny"}]
    put(store, weights[1], {"system": HARD, "params": {"foo": 1, "top_k": 3}, "messages": messages})
    text = shown(server, "first")
    assert [(c.name, c.value) for c in parse(text).commands] == [("from", "first:latest"), ("parameter", "3")]
    comments = [line for line in text.splitlines() if line.startswith("# -")]
    assert comments == [
        "# - SYSTEM: lines in it end with the quotes that would enclose it",
        "# - PARAMETER foo: unknown parameter 'foo'",
        "# - 2 messages, of which one by 'tool' has no form",
    ]


def test_files_beside_the_weights(
    server: EngineServer, store: ModelStore, weights: list[Model], tmp_path: Path
) -> None:
    extra = {
        "adapter": lora(tmp_path / "lora.gguf"),
        "draft": build(tmp_path / "draft.gguf", {None: "draft"}),
        "projector": projector(tmp_path / "projector.gguf"),
    }
    layers = [Layer.of_kind(kind, *store.blobs.add_file(path)) for kind, path in extra.items()]
    base = weights[1].manifest
    first = store.put(Name.parse("first"), Manifest.make(base.config, (*base.layers, *layers)))
    text = shown(server, "first")
    assert [line.split()[0] for line in text.splitlines()[4:]] == ["FROM", "ADAPTER", "DRAFT", "FROM"]
    second = made_again(server, store, parse(text))
    ours, theirs = facts(second), facts(first)
    # The projector's family joins the configuration when the parts are looked at again.
    assert (ours.pop("config").model_families, theirs.pop("config").model_families) == (
        ("llama", "clip"),
        ("llama",),
    )
    assert ours == theirs
