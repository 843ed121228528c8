"""Pictures and sounds that a message mentions by their paths."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import click

from llm_engine.errors import EngineError

MAX_MEDIA = 100 * 1024 * 1024
_ENDING = r"\.(?:jpe?g|png|webp|wav)"
# In quotes, or with a backslash before each blank, as terminals write a file that is dropped on them.
_MEDIA = re.compile(
    rf"'([^'\n]+{_ENDING})'|\"([^\"\n]+{_ENDING})\"|((?:\\.|[^\s'\"\\])+?{_ENDING})\b", re.IGNORECASE
)


def begins_with_path(text: str) -> bool:
    """Whether a text that begins with a slash means a file, not a command."""
    return _MEDIA.match(text) is not None


def with_media(text: str) -> dict[str, Any]:
    """A message with the pictures and sounds whose paths it mentions; paths of no file stay in the text."""
    images: list[str] = []
    rest, at = "", 0
    for match in _MEDIA.finditer(text):
        path = Path(match[1] or match[2] or re.sub(r"\\(.)", r"\1", match[3])).expanduser()
        if not path.is_file():
            continue
        images.append(base64.b64encode(_read(path)).decode())
        rest += text[at : match.start()]
        at = match.end()
        click.echo(f"Added image '{path}'")
    message: dict[str, Any] = {"role": "user", "content": (rest + text[at:]).strip()}
    return {**message, "images": images} if images else message


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MEDIA:
            raise EngineError(f"{path} is larger than {MAX_MEDIA // 1024**2} MiB")
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}") from None
