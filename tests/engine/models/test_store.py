"""The store: what it writes, what it re-reads, what it never removes, and what it reports."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from llm_engine.models.bundle import export, load
from llm_engine.models.canonical import encode, go_float
from llm_engine.models.config import ModelConfig
from llm_engine.models.create import Recipe, create, create_from_gguf
from llm_engine.models.digests import Digest
from llm_engine.models.errors import (
    BlobMissing,
    CreateError,
    DigestMismatch,
    InvalidGGUF,
    ModelNotFound,
    PinMismatch,
)
from llm_engine.models.manifests import CONFIG_TYPE, LAYER_PREFIX, Manifest
from llm_engine.models.names import Name
from llm_engine.models.store import ModelStore


def blob_names(store: ModelStore) -> set[str]:
    return set(os.listdir(store.blobs.root))


def test_a_model_from_a_file(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(
        store,
        "hello",
        chat_gguf,
        template="{{ .Prompt }}",
        system="Be brief.",
        params={"stop": ["<|im_start|>"], "num_ctx": 512},
    )
    assert model.short_name == "hello:latest"
    assert model.config.model_family == "llama"
    assert model.config.file_type == "F16"
    assert model.model_path is not None
    assert model.model_path.read_bytes() == chat_gguf.read_bytes()
    assert model.template == "{{ .Prompt }}"
    assert model.system == "Be brief."
    assert model.params == {"num_ctx": 512, "stop": ["<|im_start|>"]}
    assert model.capabilities == ("completion",)
    assert [layer.kind for layer in model.manifest.layers] == ["model", "template", "system", "params"]
    assert model.missing() == []


def test_bytes_on_disk_are_go_json(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(
        store, "m", chat_gguf, params={"stop": ["<|im_start|>"], "temperature": 1.0, "num_ctx": 8}
    )
    (layer,) = model.manifest.of_kind("params")
    raw = store.blobs.path(layer.digest).read_bytes()
    assert raw == b'{"num_ctx":8,"stop":["\\u003c|im_start|\\u003e"],"temperature":1}\n'
    config = store.blobs.path(model.manifest.config.digest).read_bytes()
    start = b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"1'
    assert config.startswith(start)
    assert config.endswith(b'"file_type":"F16","architecture":"amd64","os":"linux"}\n')
    manifest = (store.root / "manifests/registry.ollama.ai/library/m/latest").read_bytes()
    assert manifest.startswith(
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        b'"config":{"mediaType":'
    )
    assert manifest.endswith(b"]}\n")
    assert model.digest == Digest.of(manifest).hex


def test_a_copied_directory_reads_back_to_the_same_digests(
    store: ModelStore, chat_gguf: Path, tmp_path: Path
) -> None:
    create_from_gguf(store, "one", chat_gguf, system="a")
    create_from_gguf(store, "me/Two:x", chat_gguf, template="{{ .Prompt }}")
    shutil.copytree(store.root, tmp_path / "copy")
    copy = ModelStore(tmp_path / "copy")
    assert {m.short_name: m.digest for m in copy.list()} == {m.short_name: m.digest for m in store.list()}
    for model in copy.list():
        assert all(copy.blobs.verify(layer.digest) for layer in model.manifest.everything)
        rewritten = copy.put(
            model.name, type(model.manifest).make(model.manifest.config, model.manifest.layers)
        )
        assert rewritten.digest == model.digest


def test_names_match_without_regard_to_case(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "Llama3:8B", chat_gguf)
    assert store.resolve("LLAMA3:8b").short_name == "Llama3:8B"
    create_from_gguf(store, "llama3:8b", chat_gguf, system="new")
    assert [model.short_name for model in store.list()] == ["Llama3:8B"]


def test_not_there(store: ModelStore) -> None:
    assert store.list() == []
    with pytest.raises(ModelNotFound, match="model 'x:latest' not found"):
        store.resolve("x")
    with pytest.raises(ModelNotFound):
        store.delete(Name.parse("x"))
    with pytest.raises(ModelNotFound):
        store.resolve("x/y/z")


def test_a_blob_is_removed_with_its_last_user(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "a", chat_gguf)
    store.copy(Name.parse("a"), Name.parse("b"))
    before = blob_names(store)
    store.delete(Name.parse("a"))
    assert blob_names(store) == before
    store.delete(Name.parse("b"))
    assert blob_names(store) == set()
    assert list(store.manifests.root.iterdir()) == []


def test_noprune_keeps_everything(tmp_path: Path, chat_gguf: Path) -> None:
    store = ModelStore(tmp_path / "kept", prune=False)
    create_from_gguf(store, "a", chat_gguf)
    before = blob_names(store)
    store.delete(Name.parse("a"))
    assert blob_names(store) == before != set()
    assert store.clean(older_than=-1) == []


def test_a_held_blob_stays_even_from_another_process(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    digests = [layer.digest for layer in model.manifest.everything]
    code = (
        "import sys; from pathlib import Path; from llm_engine.models.store import ModelStore\n"
        "from llm_engine.models.names import Name\n"
        "ModelStore(Path(sys.argv[1])).delete(Name.parse('a'))"
    )
    with store.keeping(digests):
        subprocess.run([sys.executable, "-c", code, str(store.root)], check=True)
        assert all(store.blobs.has(digest) for digest in digests)
    assert store.list() == []
    assert set(store.clean(older_than=-1)) == {digest.file_name for digest in digests}
    assert os.listdir(store.leases.folder) == []


def test_broken_models_are_left_out_and_nothing_is_removed_then(store: ModelStore, chat_gguf: Path) -> None:
    good = create_from_gguf(store, "good", chat_gguf)
    create_from_gguf(store, "other", chat_gguf, system="unique text")
    bad = store.root / "manifests/registry.ollama.ai/library/bad"
    bad.mkdir()
    for tag, text in {
        "a": b"{",
        "b": b"[]",
        "c": b'{"layers":[{}]}',
        "d": b"\xff",
        "e": b'{"layers":[],"config":{"digest":"x","size":1}}',
    }.items():
        (bad / tag).write_bytes(text)
    (bad / ".hidden").write_bytes(b"{}")
    assert {model.short_name for model in store.list()} == {"good:latest", "other:latest"}
    before = blob_names(store)
    store.delete(Name.parse("other"))
    assert blob_names(store) == before
    assert store.resolve("good").digest == good.digest


def test_clean_spares_the_young_and_the_mentioned(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "a", chat_gguf)
    mentioned = blob_names(store)
    stray, _ = store.blobs.add(b"nobody mentions me")
    (store.blobs.root / "incoming-x").write_bytes(b"half")
    (store.blobs.root / f"sha256-{'0' * 64}-partial").write_bytes(b"a download that may go on")
    assert store.clean() == []
    assert set(store.clean(older_than=-1)) == {stray.file_name, "incoming-x"}
    assert blob_names(store) == mentioned | {f"sha256-{'0' * 64}-partial"}


def test_a_manifest_is_refused_while_its_blobs_are_missing(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    assert model.model_path is not None
    os.truncate(model.model_path, 100)
    with pytest.raises(BlobMissing):
        store.put(Name.parse("b"), model.manifest)
    assert [layer.kind for layer in store.resolve("a").missing()] == ["model"]


def test_blob_with_wrong_bytes_is_not_stored(store: ModelStore) -> None:
    with pytest.raises(DigestMismatch), store.blobs.writer() as writer:
        writer.write(b"x")
        writer.commit(Digest.of(b"y"))
    assert blob_names(store) == set()


def test_a_full_disk_leaves_the_store_as_it_was(store: ModelStore, chat_gguf: Path) -> None:
    """A limit on file size stands in for the disk: the kernel refuses the write in the middle."""
    create_from_gguf(store, "a", chat_gguf)
    before = blob_names(store)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from llm_engine.models.store import ModelStore\n"
        "from llm_engine.models.create import create_from_gguf\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "create_from_gguf(ModelStore(Path(sys.argv[1])), 'b', Path(sys.argv[2]), system='s')"
    )
    changed = chat_gguf.parent / "changed.gguf"
    changed.write_bytes(chat_gguf.read_bytes() + b"\0")
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root), str(changed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large" in done.stderr, done.stderr
    assert blob_names(store) == before
    assert [model.short_name for model in store.list()] == ["a:latest"]


def test_from_another_model(store: ModelStore, chat_gguf: Path) -> None:
    base = create_from_gguf(store, "base", chat_gguf, system="old", params={"num_ctx": 64, "top_k": 3})
    recipe = Recipe(
        Name.parse("child"),
        base=base,
        system="new",
        params={"top_k": 5},
        licenses=["L1", "L1"],
        messages=[{"role": "user", "content": "hi"}],
    )
    statuses = [status.status for status in create(store, recipe)]
    assert statuses[-2:] == ["writing manifest", "success"]
    child = store.resolve("child")
    # The recognised chat format brings its stop strings; the base's and the new parameters lie over them.
    assert child.params == {"num_ctx": 64, "top_k": 5, "stop": base.params["stop"]}
    assert (child.system, child.licenses) == ("new", ["L1"])
    assert child.messages == [{"role": "user", "content": "hi"}]
    assert child.model_path == base.model_path
    assert child.manifest.layers[0].origin == "base:latest"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"params": {"foo": 1}}, "unknown parameter 'foo'"),
        ({"params": {"num_ctx": "abc"}}, 'parameter "num_ctx" must be of type integer'),
        ({"template": "{{ .Prompt"}, "template error: template: :1: unclosed action"),
        ({"messages": [{"role": "bot", "content": ""}]}, "message role must be one of"),
        ({"quantize": "q9"}, "unsupported quantization type Q9"),
        ({"config": {"capabilities": "tools"}}, "capabilities must be a list"),
        ({"files": {"model.gguf": Digest("0" * 64)}, "base": None}, "blob sha256:000"),
    ],
)
def test_recipes_that_are_refused(
    store: ModelStore, chat_gguf: Path, change: dict[str, object], text: str
) -> None:
    base = create_from_gguf(store, "base", chat_gguf)
    recipe = Recipe(**{"name": Name.parse("x"), "base": base, **change})  # type: ignore[arg-type]
    with pytest.raises((CreateError, BlobMissing), match=text):
        list(create(store, recipe))
    with pytest.raises(ModelNotFound):
        store.resolve("x")


def test_safetensors_are_refused_with_what_to_run(store: ModelStore) -> None:
    digest, _ = store.blobs.add(b"weights")
    with pytest.raises(CreateError, match="convert_hf_to_gguf"):
        list(create(store, Recipe(Name.parse("x"), files={"model.safetensors": digest})))


def test_a_file_that_is_no_gguf(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"no model" * 100)
    with pytest.raises(InvalidGGUF, match="not in GGUF format"):
        create_from_gguf(store, "x", tmp_path / "x.gguf")


def test_pinned_name(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    assert store.resolve(f"a@sha256:{model.digest}").digest == model.digest
    with pytest.raises(ModelNotFound):
        store.resolve(f"a@sha256:{'0' * 64}")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.7, "0.7"), (1.0, "1"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-7, "1e-7"),
     (1e-5, "0.00001"), (1.5e-6, "0.0000015"), (-2.5, "-2.5"), (1.25e300, "1.25e+300")],
)  # fmt: skip
def test_floats_as_go_writes_them(value: float, text: str) -> None:
    assert go_float(value) == text
    assert json.loads(encode(value)) == value


OLLAMAS_CONFIG = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"4.18M",'
    b'"file_type":"F16","renderer":"qwen3-coder","parser":"qwen3-coder","requires":"0.14.0",'
    b'"capabilities":["tools"],"context_length":512,"architecture":"amd64","os":"linux"}\n'
)


def as_ollama_writes(root: Path, gguf: bytes) -> bytes:
    """A directory laid out byte for byte as Ollama does it; gives the manifest."""
    layers = [
        ("model", gguf, ',"from":"tiny:latest"'),
        ("template", b"{{ .Prompt }}", ""),
        ("system", b"<be> & \xe2\x80\xa8brief", ""),
        ("params", b'{"num_ctx":512,"stop":["\\u003c|im_end|\\u003e"],"temperature":0.7}\n', ""),
        ("messages", b'[{"role":"user","content":"a \\u0026 b"}]\n', ""),
    ]
    for data in (OLLAMAS_CONFIG, *(data for _, data, _ in layers)):
        path = root / "blobs" / Digest.of(data).file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    prefix = "application/vnd.ollama.image."
    written = ",".join(
        f'{{"mediaType":"{prefix}{kind}","digest":"{Digest.of(data)}","size":{len(data)}{extra}}}'
        for kind, data, extra in layers
    )
    manifest = (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":'
        '{"mediaType":"application/vnd.docker.container.image.v1+json",'
        f'"digest":"{Digest.of(OLLAMAS_CONFIG)}","size":{len(OLLAMAS_CONFIG)}}},"layers":[{written}]}}\n'
    ).encode()
    path = root / "manifests/registry.ollama.ai/library/theirs/latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    return manifest


def test_a_directory_that_ollama_wrote(store: ModelStore, chat_gguf: Path) -> None:
    gguf = chat_gguf.read_bytes()
    raw = as_ollama_writes(store.root, gguf)
    model = store.resolve("theirs")
    assert model.digest == Digest.of(raw).hex
    assert (model.template, model.system) == ("{{ .Prompt }}", "<be> & \u2028brief")
    assert model.params == {"num_ctx": 512, "stop": ["<|im_end|>"], "temperature": 0.7}
    assert model.messages == [{"role": "user", "content": "a & b"}]
    assert (model.config.renderer, model.config.requires) == ("qwen3-coder", "0.14.0")
    assert model.model_path is not None and model.model_path.read_bytes() == gguf
    assert "tools" in model.capabilities
    # What we would write of it has the same bytes, so the same digests.
    assert model.config.encode() == OLLAMAS_CONFIG
    assert Manifest.make(model.manifest.config, model.manifest.layers).raw == raw
    (params,) = model.manifest.of_kind("params")
    assert Digest.of(encode(model.params, sort_keys=True)) == params.digest
    (messages,) = model.manifest.of_kind("messages")
    assert Digest.of(encode(model.messages)) == messages.digest


def test_a_manifest_as_registries_keep_it(store: ModelStore, chat_gguf: Path) -> None:
    """No newline, other keys in another order, a configuration with keys that are none of ours."""
    config = (
        b'{"architecture":"amd64","rootfs":{"type":"layers"},"model_family":"llama","model_format":"gguf"}'
    )
    layer, _ = store.blobs.add_file(chat_gguf)
    digest, _ = store.blobs.add(config)
    document = {
        "layers": [
            {"size": chat_gguf.stat().st_size, "digest": str(layer), "mediaType": LAYER_PREFIX + "model"}
        ],
        "config": {"digest": str(digest), "size": len(config), "mediaType": CONFIG_TYPE},
        "annotations": {"any": "thing"},
        "schemaVersion": 2,
    }
    raw = json.dumps(document, indent=1).encode()
    model = store.put(Name.parse("reg.example/team/m:v1"), Manifest.parse(raw, "m"))
    assert model.digest == Digest.of(raw).hex
    assert (store.root / "manifests/reg.example/team/m/v1").read_bytes() == raw
    assert [found.short_name for found in store.list()] == ["reg.example/team/m:v1"]
    assert model.config.model_family == "llama"


def test_config_keeps_gos_null_for_no_families() -> None:
    assert b'"model_families":null' in ModelConfig(model_format="gguf").encode()


def test_a_pin_must_hold_for_whatever_is_done_with_a_name(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    other, right = f"sha256:{'0' * 64}", f"sha256:{model.digest}"
    with pytest.raises(ModelNotFound, match=other):
        store.delete(Name.parse(f"a@{other}"))
    with pytest.raises(PinMismatch, match=right):
        store.copy(Name.parse("a"), Name.parse(f"b@{other}"))
    with pytest.raises(CreateError, match="has no digest yet"):
        create_from_gguf(store, f"c@{right}", chat_gguf)
    assert [found.short_name for found in store.list()] == ["a:latest"]
    store.copy(Name.parse("a"), Name.parse(f"b@{right}"))
    store.delete(Name.parse(f"a@{right}"))
    assert [found.short_name for found in store.list()] == ["b:latest"]


def test_a_name_is_found_in_any_spelling_of_its_folders(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "Foo/a", chat_gguf)
    create_from_gguf(store, "foo/b", chat_gguf, system="b")
    assert sorted(model.short_name for model in store.list()) == ["Foo/a:latest", "Foo/b:latest"]
    # As another program may have left it: two folders that differ in case alone.
    folder = store.manifests.root / "registry.ollama.ai"
    shutil.copytree(folder / "Foo/b", folder / "foo/c")
    shutil.copytree(folder / "Foo/b", folder / "foo/A/")
    for name in ("foo/a", "FOO/b", "Foo/C", "fOO/c"):
        assert store.resolve(name).short_name.lower() == f"{name.lower()}:latest"
    assert store.resolve("Foo/a").system == "" and store.resolve("foo/A").system == "b"
    create_from_gguf(store, "FOO/c", chat_gguf, system="c")
    assert store.resolve("foo/c").short_name == "foo/c:latest" and store.resolve("foo/c").system == "c"
    with pytest.raises(ModelNotFound):
        store.resolve("x" * 300 + "/library/m")


def test_names_come_and_go_while_others_look(store: ModelStore, chat_gguf: Path) -> None:
    """Each removal takes the folders with it, under whoever lists them or is about to write into them."""
    manifest = create_from_gguf(store, "kept", chat_gguf).manifest

    def come_and_go(worker: int) -> None:
        for _ in range(150):
            store.put(Name.parse(f"team/m:{worker}"), manifest)
            store.delete(Name.parse(f"team/m:{worker}"))

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(come_and_go, worker) for worker in range(3)]
        while not all(task.done() for task in working):
            assert "kept:latest" in [model.short_name for model in store.list()]
            assert store.mentioned() == {layer.digest for layer in manifest.everything}
    for task in working:
        task.result()
    assert [model.short_name for model in store.list()] == ["kept:latest"]


@pytest.mark.parametrize("way", ["import", "file", "copy"])
def test_what_is_made_of_blobs_keeps_them_from_a_removal(
    store: ModelStore, chat_gguf: Path, way: str
) -> None:
    bundle = io.BytesIO()
    export(create_from_gguf(store, "new", chat_gguf), bundle)
    make = {
        "import": lambda: load(store, io.BytesIO(bundle.getvalue())),
        "file": lambda: create_from_gguf(store, "new", chat_gguf),
        "copy": lambda: store.copy(Name.parse("other"), Name.parse("new")),
    }[way]
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            if way == "copy":
                create_from_gguf(store, "other", chat_gguf)
            for name in ("other", "new"):
                with contextlib.suppress(ModelNotFound):
                    store.delete(Name.parse(name))

    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(remove)
        try:
            for _ in range(30):
                with contextlib.suppress(ModelNotFound):  # removed the moment it was there
                    make()
        finally:
            stop.set()
        removing.result()


def test_a_promised_blob_stays_until_a_model_is_made_of_it(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    (weights,) = model.manifest.of_kind("model")
    store.promised.keep(weights.digest)
    store.delete(Name.parse("a"))
    assert store.blobs.has(weights.digest, weights.size)
    for _ in create(store, Recipe(Name.parse("b"), files={"m.gguf": weights.digest})):
        pass
    store.delete(Name.parse("b"))
    assert not store.blobs.has(weights.digest)
    stray, _ = store.blobs.add(b"uploaded, and never asked for")
    store.promised.seconds = 0.0
    store.promised.keep(stray)
    assert store.remove_unused([stray]) == [stray]


def test_a_truncated_model_is_not_listed(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "whole", chat_gguf)
    changed = chat_gguf.parent / "longer.gguf"
    changed.write_bytes(chat_gguf.read_bytes() + b"\0")
    model = create_from_gguf(store, "cut", changed)
    assert model.model_path is not None
    os.truncate(model.model_path, 100)
    assert [found.short_name for found in store.list()] == ["whole:latest"]
    (weights,) = model.manifest.of_kind("model")
    assert store.blobs.has(weights.digest) and not store.has_whole(weights.digest)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_an_import_puts_a_damaged_blob_right(store: ModelStore, chat_gguf: Path, damage: str) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    bundle = io.BytesIO()
    export(model, bundle)
    assert model.model_path is not None
    if damage == "cut":
        os.truncate(model.model_path, 100)
    else:
        with model.model_path.open("r+b") as file:
            file.seek(2000)
            file.write(b"other bytes")
    bundle.seek(0)
    load(store, bundle)
    assert model.model_path.read_bytes() == chat_gguf.read_bytes()
    wrong = bytearray(bundle.getvalue())
    wrong[wrong.index(b"GGUF") + 2000] ^= 1
    with pytest.raises(DigestMismatch):
        load(store, io.BytesIO(wrong))
