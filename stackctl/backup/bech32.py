"""Bech32 (BIP 173), the text form of age keys: a prefix, the bytes in base 32, and a checksum."""

from __future__ import annotations

from collections.abc import Iterable

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode(prefix: str, data: bytes) -> str:
    values = _regroup(data, 8, 5, pad=True)
    return prefix + "1" + "".join(_ALPHABET[value] for value in [*values, *_checksum(prefix, values)])


def decode(prefix: str, text: str) -> bytes:
    """The bytes of `text`; ValueError when the prefix or the checksum is wrong."""
    found, _, rest = text.strip().rpartition("1")
    if found != prefix:
        raise ValueError(f"'{text[:12]}…' does not begin with {prefix}1")
    try:
        values = [_ALPHABET.index(char) for char in rest]
    except ValueError:
        raise ValueError(f"'{text[:12]}…' has a character that no key has") from None
    if _polymod([*_expand(prefix), *values]) != 1:
        raise ValueError(f"'{text[:12]}…' is mistyped: its checksum is wrong")
    return bytes(_regroup(values[:-6], 5, 8, pad=False))


def _checksum(prefix: str, values: list[int]) -> list[int]:
    found = _polymod([*_expand(prefix), *values, 0, 0, 0, 0, 0, 0]) ^ 1
    return [(found >> 5 * (5 - place)) & 31 for place in range(6)]


def _expand(prefix: str) -> list[int]:
    return [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            if top >> place & 1:
                check ^= generator
    return check


def _regroup(data: Iterable[int], width: int, into: int, *, pad: bool) -> list[int]:
    bits = kept = 0
    found = []
    for value in data:
        bits = (bits << width) | value
        kept += width
        while kept >= into:
            kept -= into
            found.append(bits >> kept & ((1 << into) - 1))
    if pad and kept:
        found.append(bits << (into - kept) & ((1 << into) - 1))
    return found
