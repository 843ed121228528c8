"""A disk that is full, for real: a small file system of the test's own, in a namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.small_disk import on_a_small_disk

SCRIPT = """
import asyncio, os, sys
from pathlib import Path

from llm_engine.models.bundle import export, load
from llm_engine.models.create import Recipe, create, create_from_gguf
from llm_engine.models.digests import Digest
from llm_engine.models.errors import ModelNotFound, StoreFull
from llm_engine.models.manifests import Manifest
from llm_engine.models.names import Name
from llm_engine.models.registry.partial import Partial
from llm_engine.models.store import ModelStore

disk, gguf = Path(sys.argv[1]), Path(sys.argv[2])
store = ModelStore(disk / "models")
create_from_gguf(store, "kept", gguf, system="Be brief.")


def fill(leave: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(free - leave, 0)))


def state() -> set[tuple[str, int]]:
    found = {(str(p.relative_to(disk)), p.stat().st_size) for p in store.root.rglob("*") if p.is_file()}
    return {item for item in found if ".leases" not in item[0]}


def refused(what: str, action) -> None:
    before = state()
    try:
        action()
    except StoreFull as error:
        assert "no space left on the disk" in str(error), error
    else:
        raise SystemExit(f"{what} was not refused")
    assert state() == before, (what, state() ^ before)
    assert [model.short_name for model in store.list()] == ["kept:latest"], what
    assert all(store.blobs.verify(layer.digest) for layer in store.resolve("kept").manifest.everything)
    print("held:", what)


def partial() -> None:
    part = Partial(store.blobs, Digest("0" * 64), 50_000_000)
    try:
        part.open()
    finally:
        part.close()
        part.record_path.unlink(missing_ok=True)
        part.path.unlink(missing_ok=True)


def while_it_comes() -> None:
    part = Partial(store.blobs, Digest("1" * 64), 3_000_000)
    (disk / "filler").unlink()  # there was room when it began
    part.open()
    fill(leave=300_000)
    try:
        for at in range(0, 3_000_000, 100_000):
            asyncio.run(part.write(at, os.urandom(100_000)))
    finally:
        assert 0 < part.ranges.total < 3_000_000
        part.close()
        part.record_path.unlink()
        part.path.unlink()


changed = disk.parent / "changed.gguf"
changed.write_bytes(gguf.read_bytes() + bytes(64))
with (disk.parent / "bundle.tar").open("wb") as file:
    export(store.resolve("kept"), file)
base = store.resolve("kept")
fill(leave=100_000)
refused("a model from a file", lambda: create_from_gguf(store, "new", changed))
refused("a blob", lambda: store.blobs.add(os.urandom(200_000)))
refused(
    "quantised weights",
    lambda: [*create(store, Recipe(Name.parse("small"), base=base, quantize="q8_0"))],
)
refused("a download", partial)
refused("a download on its way", while_it_comes)
fill(leave=0)
refused("a manifest", lambda: store.copy(Name.parse("kept"), Name.parse("second")))
store.delete(Name.parse("kept"))  # what makes room again works on a full disk
assert store.list() == []
(disk / "filler").unlink()
with (disk.parent / "bundle.tar").open("rb") as file:
    assert [model.digest for model in load(store, file)] == [base.digest]
"""


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, chat_gguf: Path) -> None:
    # Beside the small disk, the script's other files lie on an ordinary one.
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [*on_a_small_disk(disk), sys.executable, str(tmp_path / "script.py"), str(disk), str(chat_gguf)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held:") == 6
