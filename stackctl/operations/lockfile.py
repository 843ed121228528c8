"""`stack.lock`: what each image reference of the stack file exactly means. Reviewable, made to be committed.

`up` runs what it says; `upgrade` moves it after the new version has proven itself, `rollback` moves it back.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import yaml

from stackctl import durable
from stackctl.errors import ConfigError

_HEADER = """\
# What runs, exactly. Moved by `stackctl upgrade` and `stackctl rollback`.
# Commit it with the stack file.
"""


def read(path: Path) -> dict[str, str]:
    """Reference -> `name@sha256:…` or image id; empty when there is no lock file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid: {error}", fix=f"rm {path}; stackctl upgrade") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, dict) or not all(isinstance(pin, str) for pin in images.values()):
        raise ConfigError(
            f"{path} is not valid: expected `images:` with texts", fix=f"rm {path}; stackctl upgrade"
        )
    return {str(reference): pin for reference, pin in images.items()}


def text(pins: Mapping[str, str]) -> str:
    return _HEADER + yaml.safe_dump({"images": dict(sorted(pins.items()))}, sort_keys=False, width=200)


def diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    return "".join(
        difflib.unified_diff(
            text(old).splitlines(keepends=True),
            text(new).splitlines(keepends=True),
            "stack.lock",
            "stack.lock (new)",
        )
    )


def write(path: Path, pins: Mapping[str, str]) -> None:
    durable.write(path, text(pins))
