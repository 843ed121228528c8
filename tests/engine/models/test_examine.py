"""Tidying a store: what only takes space goes, and nothing that anybody may still want."""

from __future__ import annotations

import os
from pathlib import Path

from llm_engine.models.create import create_from_gguf
from llm_engine.models.digests import Digest
from llm_engine.models.examine import examine, set_aside, tidy
from llm_engine.models.registry.partial import Partial
from llm_engine.models.store import ModelStore

LONG_AGO = (1_000_000_000, 1_000_000_000)


def stray(store: ModelStore, data: bytes) -> Digest:
    digest, _ = store.blobs.add(data)
    os.utime(store.blobs.path(digest), LONG_AGO)
    return digest


def begun(store: ModelStore, data: bytes) -> Partial:
    """A download that stopped long ago."""
    partial = Partial(store.blobs, Digest.of(data), len(data))
    partial.open()
    partial.path.with_name(f"{partial.path.name}-0").write_text("{}")
    os.utime(partial.path, LONG_AGO)
    return partial


def test_what_nobody_wants_goes(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "a", chat_gguf)
    kept = set(os.listdir(store.blobs.root))
    unused = stray(store, b"nobody mentions me")
    temporary = store.blobs.root / "incoming-x"
    temporary.write_bytes(b"half")
    os.utime(temporary, LONG_AGO)
    partial = begun(store, b"half of a download")
    partial.close()
    texts = {finding.subject: finding.fix for finding in examine(store)}
    assert texts == dict.fromkeys((str(unused), partial.path.name, "incoming-x"), "llm-engine doctor --fix")
    assert set(tidy(store)) == {unused.file_name, "incoming-x", partial.path.name}
    assert set(os.listdir(store.blobs.root)) == kept
    assert list(examine(store)) == []


def test_what_somebody_may_want_stays(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "a", chat_gguf)
    held = stray(store, b"about to be mentioned")
    young, _ = store.blobs.add(b"just uploaded")
    partial = begun(store, b"a download under way")
    before = set(os.listdir(store.blobs.root))
    with store.keeping([held]):
        assert list(tidy(store)) == []
    assert set(os.listdir(store.blobs.root)) == before
    partial.close()
    assert list(tidy(store)) == [held.file_name, partial.path.name]
    assert store.blobs.has(young)


def test_nothing_goes_while_a_manifest_cannot_be_read(store: ModelStore, chat_gguf: Path) -> None:
    create_from_gguf(store, "a", chat_gguf)
    unused = stray(store, b"perhaps the broken model's")
    folder = store.manifests.root / "registry.ollama.ai/library/broken"
    folder.mkdir()
    (folder / "latest").write_bytes(b"{")
    assert list(tidy(store)) == []
    assert store.blobs.has(unused)


def test_damaged_blobs_are_set_aside_so_that_a_pull_fetches_them(store: ModelStore, chat_gguf: Path) -> None:
    model = create_from_gguf(store, "a", chat_gguf)
    assert model.model_path is not None
    with model.model_path.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"other bytes")
    unused, _ = store.blobs.add(b"nobody mentions me")
    store.blobs.path(unused).write_bytes(b"nobody mentions MY bytes")
    os.utime(store.blobs.path(unused), LONG_AGO)
    (weights,) = model.manifest.of_kind("model")
    aside = "llm-engine doctor --verify --fix"
    assert {(found.level, found.subject, found.fix) for found in examine(store, verify=True)} == {
        ("error", "a:latest", f"{aside} && llm-engine pull a:latest"),
        ("warning", str(unused), aside),
    }
    names = {f"{digest.file_name}-damaged" for digest in (weights.digest, unused)}
    assert set(set_aside(store)) == names
    assert not store.blobs.has(weights.digest)  # so that a pull, an import or an upload brings it
    assert store.list() == []
    found = {finding.subject: finding.fix for finding in examine(store, verify=True)}
    for name in names:
        assert found.pop(name) == f"rm {store.blobs.root / name}"
    assert found == {"a:latest": "llm-engine pull a:latest"}
    create_from_gguf(store, "a", chat_gguf)
    assert {finding.subject for finding in examine(store, verify=True)} == names
