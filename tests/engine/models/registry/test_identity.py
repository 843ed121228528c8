"""The key by which Ollama's registry knows us: made once, whole, and for its owner alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from llm_engine.models.errors import RegistryError
from llm_engine.models.registry.identity import Identity


def test_all_who_need_it_first_at_once_get_the_same_key(tmp_path: Path) -> None:
    together = Barrier(8)

    def load(path: Path) -> str:
        together.wait(20)
        return Identity.load(path).public

    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            path = tmp_path / str(turn) / ".ollama" / "id_ed25519"
            assert len(set(pool.map(load, [path] * 8))) == 1
            assert sorted(entry.name for entry in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot write the key"):
        Identity.load(tmp_path / "file" / "id_ed25519")
