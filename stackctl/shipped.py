"""What the product reads when it runs: `compose/`, `procedures/`, and the lock in `requirements/`.

In a checkout they lie beside the package, where a person looks for them; a wheel carries them inside it, so
that an installed stackctl works in any folder.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
