"""The model store as the engine writes it: whole, then with a blob deleted, cut, and changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from llm_engine.models.create import create_from_gguf
from llm_engine.models.scripted import build
from llm_engine.models.store import ModelStore

from stackctl.health.model import Status
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import look


@pytest.fixture
def store(tmp_path: Path) -> Path:
    gguf = build(tmp_path / "m.gguf", {None: "hello"})
    create_from_gguf(
        ModelStore(tmp_path / "models"), "mine:latest", gguf, template="{{ .Prompt }}", system="be"
    )
    return tmp_path


def test_a_whole_store_is_well(store: Path) -> None:
    result = look(plan(data_dir=str(store)), "store")
    assert result.status is Status.OK, result
    assert result.summary.startswith("1 models, ")


@pytest.mark.parametrize("damage", ["delete", "cut", "change"])
def test_damage_is_named(store: Path, damage: str) -> None:
    blobs = sorted((store / "models" / "blobs").glob("sha256-*"), key=lambda path: path.stat().st_size)
    if damage == "delete":
        blobs[-1].unlink()
    elif damage == "cut":
        blobs[-1].write_bytes(blobs[-1].read_bytes()[:-10])
    else:
        text = blobs[0].read_bytes()
        blobs[0].write_bytes(bytes([text[0] ^ 1]) + text[1:])
    result = look(plan(data_dir=str(store)), "store")
    words = {"delete": "is missing", "cut": "bytes, not", "change": "has another content"}[damage]
    assert result.status is Status.CRITICAL
    assert "mine" in result.summary and words in result.summary


def test_an_unreadable_manifest_is_one_problem(store: Path) -> None:
    manifest = next(path for path in (store / "models" / "manifests").rglob("*") if path.is_file())
    manifest.write_text("{")
    result = look(plan(data_dir=str(store)), "store")
    assert (result.status, "cannot be read" in result.summary) == (Status.CRITICAL, True)


def test_a_store_that_is_not_there_yet_is_skipped(tmp_path: Path) -> None:
    assert look(plan(data_dir=str(tmp_path)), "store").skipped
