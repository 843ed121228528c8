"""Is the model store whole: does every manifest have its blobs, in their sizes, and the small ones their
content?

Large blobs are compared by size only: reading hundreds of gigabytes is no health check. A flipped bit in a
template or a manifest's config is found by its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stackctl.health.check import Check, Look
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, skipped, unknown

_SMALL = 256 * 1024


def checks(scene: Scene) -> list[Check]:
    if scene.plan.service("engine") is None:
        return []
    return [
        Check(
            id="store",
            title="Model store is whole",
            looks_at="every manifest's blobs: present, of the right size, small ones by their SHA-256",
            why="a deleted or cut blob shows only when its model is next loaded",
            do="stackctl models pull NAME fetches what is missing",
            run=partial(_look, Path(scene.plan.models_path)),
            timeout=20,
            interval=900,
            during_operations=False,
        )
    ]


def _look(root: Path, look: Look) -> Result:
    if not root.is_dir():
        return skipped(f"{root} does not exist yet")
    wrong: list[str] = []
    models, blobs = 0, set[str]()
    try:
        for manifest in sorted((root / "manifests").glob("*/*/*/*")):
            if not manifest.is_file() or manifest.name.startswith("."):
                continue
            models += 1
            for problem, digest in _blobs(root, manifest):
                blobs.add(digest)
                if problem:
                    wrong.append(f"{'/'.join(manifest.parts[-2:])}: {problem}")
    except PermissionError as error:
        return unknown(f"{error.filename}: {error.strerror}")
    metrics = (Metric("models", models), Metric("blobs", len(blobs)))
    if wrong:
        text = f"{len(wrong)} wrong: {wrong[0]}"
        return Result(Status.CRITICAL, text, details=tuple(wrong[:20]), metrics=metrics)
    return Result(Status.OK, f"{models} models, {len(blobs)} blobs, all there", metrics=metrics)


def _blobs(root: Path, manifest: Path) -> Iterator[tuple[str | None, str]]:
    """(problem or None, digest) of each blob; an unreadable manifest is one problem."""
    try:
        data = json.loads(manifest.read_bytes())
        layers: list[dict[str, Any]] = [data["config"], *(data.get("layers") or [])]
        wanted = [(str(layer["digest"]), int(layer["size"])) for layer in layers]
    except (ValueError, KeyError, TypeError):
        yield "its manifest cannot be read", str(manifest)
        return
    for digest, size in wanted:
        yield _problem(root / "blobs" / digest.replace(":", "-"), digest, size), digest


def _problem(path: Path, digest: str, size: int) -> str | None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return f"blob {digest[:19]} is missing"
    if found != size:
        return f"blob {digest[:19]} has {found} bytes, not {size}"
    if size <= _SMALL and hashlib.sha256(path.read_bytes()).hexdigest() != digest.removeprefix("sha256:"):
        return f"blob {digest[:19]} has another content"
    return None
