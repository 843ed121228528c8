"""Looking for what is wrong in a store, without changing it; and removing what only takes space."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidDigest, InvalidGGUF, ModelsError
from llm_engine.models.registry.partial import Partial
from llm_engine.models.store import ModelStore

DAY = 86400.0
TIDY = "llm-engine doctor --fix"
SET_ASIDE = "llm-engine doctor --verify --fix"
DAMAGED = "-damaged"


@dataclass(frozen=True)
class Finding:
    level: str
    """`error`: a model does not work; `warning`: space is wasted, or a look is worth it."""
    subject: str
    text: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(store: ModelStore, *, verify: bool = False) -> Iterator[Finding]:
    """Every finding; `verify` reads each blob and compares it with its name, which takes as long as reading
    does."""
    mentioned: dict[Digest, str] = {}
    damaged: set[Digest] = set()
    readable = True
    for name in sorted(store.manifests.names(), key=lambda name: name.key):
        fix = f"llm-engine pull {name.short}"
        try:
            model = store.resolve(name)
            _ = (model.config, model.params, model.messages)
        except ModelsError as error:
            readable = False
            yield Finding("error", name.short, str(error), fix)
            continue
        mentioned.update(dict.fromkeys((layer.digest for layer in model.manifest.everything), name.short))
        broken = model.missing()
        for layer in broken:
            there = store.blobs.has(layer.digest)
            state = "is truncated" if there else "is missing"
            yield Finding("error", name.short, f"its {layer.kind} layer {layer.digest} {state}", fix)
        if not broken:
            try:
                _ = model.gguf
            except (InvalidGGUF, OSError) as error:
                yield Finding("error", name.short, str(error), f"{SET_ASIDE} && {fix}")
    if verify:
        for digest in sorted(store.blobs.digests()):
            if not store.blobs.verify(digest):
                damaged.add(digest)
                who = mentioned.get(digest)
                yield Finding(
                    "error" if who else "warning",
                    who or str(digest),
                    f"blob {digest} does not hold the bytes of its name",
                    f"{SET_ASIDE} && llm-engine pull {who}" if who else SET_ASIDE,
                )
    if readable:
        for digest in sorted(set(store.blobs.digests()) - set(mentioned) - damaged):
            size = store.blobs.path(digest).stat().st_size
            yield Finding("warning", str(digest), f"no model uses this blob of {size} bytes", TIDY)
    yield from _strays(store)


def _strays(store: ModelStore) -> Iterator[Finding]:
    for path, age in _old_files(store, "-partial"):
        yield Finding("warning", path.name, f"a download that nobody went on with for {age:.0f} days", TIDY)
    for path, age in _old_files(store, ""):
        if path.name.startswith("incoming-"):
            yield Finding("warning", path.name, f"a temporary file, {age:.0f} days old", TIDY)
    for path in sorted(store.blobs.root.glob(f"*{DAMAGED}")):
        text = "a damaged blob that was set aside"
        yield Finding("warning", path.name, text, f"rm {shlex.quote(str(path))}")


def _old_files(store: ModelStore, ending: str) -> Iterator[tuple[Path, float]]:
    """Files that nobody has touched for a day, and how many days it is."""
    if not store.blobs.root.is_dir():
        return
    for path in sorted(store.blobs.root.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # finished, or removed, while we looked
            age = (time.time() - path.stat().st_mtime) / DAY
            if path.name.endswith(ending) and age > 1:
                yield path, age


def set_aside(store: ModelStore) -> Iterator[str]:
    """Takes the name from each blob that does not hold the bytes of it, so that a pull fetches it again.

    The bytes stay, for a model that was made here may be nowhere else; gives the names of the files.
    """
    for digest in sorted(store.blobs.digests()):
        with contextlib.suppress(FileNotFoundError):  # removed while we looked
            if not store.blobs.verify(digest):
                path = store.blobs.path(digest)
                yield path.rename(path.with_name(path.name + DAMAGED)).name


def tidy(store: ModelStore) -> Iterator[str]:
    """Removes what only takes space, and gives the names of the files.

    The store's own rules hold: nothing that a manifest mentions or that somebody holds, nothing younger than
    an hour, and no blob at all while a manifest cannot be read. A download goes when it is older than a day
    and nobody is at work on it.
    """
    yield from store.clean()
    for path, _ in _old_files(store, "-partial"):
        with contextlib.suppress(InvalidDigest, OSError):
            digest = Digest.parse(path.name.removesuffix("-partial"))
            partial = Partial(store.blobs, digest, path.stat().st_size)
            try:
                if partial.abandon():
                    yield path.name
            finally:
                partial.close()
