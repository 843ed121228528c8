"""Base64 as clients send it, decoded piece by piece: one call for a large picture would keep every other
thread waiting until it is done."""

from __future__ import annotations

import base64
import binascii

STEP = 1 << 18
"""Characters per step; a multiple of four."""


class NotBase64(ValueError):
    """The text is not base64."""


def decode(text: str) -> bytes:
    """NotBase64 for a wrong character, a wrong length or wrong padding."""
    pieces = bytearray()
    try:
        for at in range(0, len(text), STEP):
            piece = base64.b64decode(text[at : at + STEP], validate=True)
            if at + STEP < len(text) and len(piece) != STEP // 4 * 3:
                raise NotBase64  # padding in the middle
            pieces += piece
    except (binascii.Error, ValueError):
        raise NotBase64 from None
    return bytes(pieces)


def without_space(text: str) -> str:
    """The text without the line breaks that some encoders write."""
    if not any(space in text for space in " \n\r\t"):
        return text
    return "".join("".join(text[at : at + STEP].split()) for at in range(0, len(text), STEP))
