"""What the scheduler is told of files that are loaded beside a model's weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from llm_engine.api.lookup import files_of
from llm_engine.models.create import Recipe, create
from llm_engine.models.names import Name
from llm_engine.models.store import ModelStore

from tests.support import extra_gguf, random_gguf
from tests.support.model_headers import shape


def test_a_draft_and_a_projector_need_more_than_their_files(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    weights = random_gguf.build(tmp_path / "weights.gguf")
    draft = random_gguf.build(tmp_path / "draft.gguf", seed=5)
    eyes = extra_gguf.projector(tmp_path / "eyes.gguf")
    with contextlib.ExitStack() as held:
        recipe = Recipe(
            Name.parse("whole"),
            files={path.name: store.add_file(path, held) for path in (weights, eyes)},
            drafts={draft.name: store.add_file(draft, held)},
        )
        for _ in create(store, recipe):
            pass
    found = files_of(store.resolve("whole")).shape
    assert found.layers == shape(weights).layers
    assert found.draft == shape(draft)
    assert found.extra == draft.stat().st_size + eyes.stat().st_size
    assert found.beside > 0
