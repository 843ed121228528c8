"""What an image of this checkout is built from, as one digest: the label that says whether it is behind.

The one place that decides: `scripts/images` asks it for the label to write (`python -m
stackctl.runtime.docker.sources KIND`), and `up` asks it what the label should be. Standard library only: the
script may run before the dependencies are installed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LABEL = "dev.stackctl.source"

# kind (IMAGE for scripts/images) -> files and folders whose content goes into the image
INPUTS: dict[str, tuple[str, ...]] = {
    "cpu": (
        "images/engine",
        "requirements/bootstrap.txt",
        "requirements/build.txt",
        "requirements/engine.txt",
        "requirements/llama.txt",
        "scripts/llama-wheel",
    ),
    "cuda": (
        "images/engine",
        "requirements/build.txt",
        "requirements/engine.txt",
        "requirements/llama.txt",
        "scripts/llama-wheel",
    ),
    "webui": (
        "images/webui",
        "images/engine/use-ca",
        "requirements/webui.txt",
        "requirements/open-webui.txt",
    ),
    "proxy": ("images/proxy", "images/engine/use-ca"),
}
_IGNORED = {"__pycache__", "llm_engine.egg-info"}


def digest(kind: str, root: Path = ROOT) -> str:
    """Of every input and of the script that builds; the same for the same content, wherever it lies."""
    files = [root / "scripts" / "images"]
    for name in INPUTS[kind]:
        path = root / name
        files += [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    found = hashlib.sha256()
    for path in sorted(files):
        inside = path.relative_to(root)
        if not _IGNORED & set(inside.parts):
            found.update(str(inside).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:32]


if __name__ == "__main__":
    print(f"{LABEL}={digest(sys.argv[1])}")
