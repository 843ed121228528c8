"""Go's string literals, both ways: the escapes of strconv.Quote and strconv.Unquote."""

from __future__ import annotations

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_UNESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def go_quote(text: str, quote: str = '"', ascii_only: bool = False) -> str:
    out = [quote]
    for char in text:
        if char in (quote, "\\"):
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable() and (not ascii_only or char.isascii()):
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        elif ord(char) < 0x10000:
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(f"\\U{ord(char):08x}")
    return "".join([*out, quote])


def go_unquote(literal: str) -> str:
    """The text of an interpreted literal, with its quotes; ValueError when an escape is not Go's."""
    quote, body = literal[0], literal[1:-1]
    if quote == "`":
        return body.replace("\r", "")
    out: list[str] = []
    raw = bytearray()  # \x and octal escapes are bytes: several may form one character
    at = 0

    def flush() -> None:
        if raw:
            out.append(raw.decode("utf-8", "replace"))
            raw.clear()

    while at < len(body):
        char = body[at]
        if char != "\\":
            flush()
            out.append(char)
            at += 1
            continue
        kind = body[at + 1 : at + 2]
        if kind in ("x", "u", "U"):
            width = {"x": 2, "u": 4, "U": 8}[kind]
            digits = body[at + 2 : at + 2 + width]
            if len(digits) != width or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise ValueError("invalid syntax")
            code = int(digits, 16)
            if kind == "x":
                raw.append(code)
            else:
                flush()
                if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                    raise ValueError("invalid syntax")
                out.append(chr(code))
            at += 2 + width
        elif kind and kind in "01234567":
            digits = body[at + 1 : at + 4]
            if len(digits) != 3 or not all(d in "01234567" for d in digits) or int(digits, 8) > 255:
                raise ValueError("invalid syntax")
            raw.append(int(digits, 8))
            at += 4
        elif kind in _UNESCAPES or (kind and kind == quote):
            flush()
            out.append(_UNESCAPES.get(kind, kind))
            at += 2
        else:
            raise ValueError("invalid syntax")
    flush()
    return "".join(out)
