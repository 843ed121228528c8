"""Looking for what is wrong in a store, without changing it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidGGUF, ModelsError
from llm_engine.models.store import ModelStore


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
                yield Finding("error", name.short, str(error), fix)
    if verify:
        for digest in sorted(store.blobs.digests()):
            if not store.blobs.verify(digest):
                who = mentioned.get(digest, "no model")
                yield Finding(
                    "error",
                    who,
                    f"blob {digest} does not hold the bytes of its name",
                    f"llm-engine pull {who}",
                )
    if readable:
        for digest in sorted(set(store.blobs.digests()) - set(mentioned)):
            size = store.blobs.path(digest).stat().st_size
            yield Finding("warning", str(digest), f"no model uses this blob of {size} bytes")
    yield from _strays(store)


def _strays(store: ModelStore) -> Iterator[Finding]:
    if not store.blobs.root.is_dir():
        return
    for path in sorted(store.blobs.root.iterdir()):
        age = (time.time() - path.stat().st_mtime) / 86400
        if path.name.endswith("-partial") and age > 1:
            yield Finding(
                "warning", path.name, f"a download that nobody went on with for {age:.0f} days", f"rm {path}"
            )
        elif path.name.startswith("incoming-") and age > 1:
            yield Finding("warning", path.name, f"a temporary file, {age:.0f} days old", f"rm {path}")
