"""Where the pictures of a conversation stand in its prompt.

While a template runs, each picture is a marker that no user can write (it holds a random number); afterwards
the prompt is cut at the markers. What a person sees of the prompt shows `[img-N]` instead, as Ollama does.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_engine.chat.messages import Message

PLACEHOLDER = "[img]"


@dataclass(slots=True)
class MediaMarkers:
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    media: list[bytes] = field(default_factory=list)

    def mark(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with a marker for each picture: at `[img]` in the text, else in front of it."""
        return [self._mark(message) if message.images else message for message in messages]

    def _mark(self, message: Message) -> Message:
        prefix, content = "", message.content
        for image in message.images:
            marker = f"<media-{self.nonce}-{len(self.media)}>"
            self.media.append(image)
            if PLACEHOLDER in content:
                content = content.replace(PLACEHOLDER, marker, 1)
            else:
                prefix += marker
        return replace(message, content=prefix + content)

    def cut(self, prompt: str) -> tuple[str, tuple[str | bytes, ...]]:
        """The prompt to show, and its pieces: text and the bytes of pictures, in order."""
        if not self.media:
            return prompt, (prompt,)
        parts = re.split(rf"<media-{self.nonce}-(\d+)>", prompt)
        shown = [parts[0]]
        pieces: list[str | bytes] = [parts[0]]
        for number, text in zip(parts[1::2], parts[2::2], strict=True):
            shown += [f"[img-{number}]", text]
            pieces += [self.media[int(number)], text]
        return "".join(shown), tuple(piece for piece in pieces if piece)
