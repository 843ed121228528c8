"""How messages cross the socket between the server and a runner.

A frame is a 4-byte little-endian length and a msgpack document `[kind, request id, payload]`. The runner's
first frame is `hello` with the version; a server that reads another version refuses the runner. Tokens of one
turn travel in one frame (`turn`), so the server wakes once per turn however many streams run.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from llm_engine.runner import messages as m

VERSION = 1
MAX_FRAME = 1 << 30
HEADER = struct.Struct("<I")

Frame = tuple[str, int, Any]

_NESTED: dict[str, dict[str, type]] = {
    "GenerateRequest": {"sampling": m.SamplingParams, "grammar": m.Grammar},
    "Done": {"usage": m.Usage},
}
_MEDIA_TAG = 1
_BIG_TAG = 2


class ProtocolError(Exception):
    """The other side of the socket broke the protocol."""


def _plain(value: object) -> object:
    """msgpack's hook for what it does not know: dataclasses become maps, media an extension type, and so do
    integers of more than 64 bits, which a JSON schema may hold.
    """
    if isinstance(value, m.Media):
        return msgpack.ExtType(_MEDIA_TAG, value.data)
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_TAG, b"%x" % value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"cannot send a {type(value).__name__} to a runner")


def _extension(code: int, data: bytes) -> object:
    if code == _MEDIA_TAG:
        return m.Media(data)
    return int(data, 16) if code == _BIG_TAG else msgpack.ExtType(code, data)


def encode(kind: str, request_id: int = 0, payload: object = None) -> bytes:
    """One frame, ready for the socket."""
    body: bytes = msgpack.packb((kind, request_id, payload), default=_plain, use_bin_type=True)
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a {kind} message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """The inverse of `encode`, given the body without its length."""
    try:
        kind, request_id, payload = msgpack.unpackb(body, ext_hook=_extension, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"unreadable message of {len(body)} bytes: {error}") from error
    return kind, request_id, payload


def frame_length(header: bytes) -> int:
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise ProtocolError(f"a message of {length} bytes is over the limit of {MAX_FRAME}")
    return int(length)


class Splitter:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER.size:
            length = frame_length(bytes(buffer[start : start + HEADER.size]))
            end = start + HEADER.size + length
            if len(buffer) < end:
                break
            yield decode(bytes(buffer[start + HEADER.size : end]))
            start = end
        del buffer[:start]


def build(cls: type[Any], fields: dict[str, Any]) -> Any:
    """A message dataclass from the map that carried it."""
    nested = _NESTED.get(cls.__name__)
    if nested:
        fields = {
            key: nested[key](**value) if key in nested and value is not None else value
            for key, value in fields.items()
        }
    return cls(**fields)


def load_spec(fields: dict[str, Any]) -> m.LoadSpec:
    adapters = tuple(m.Adapter(**adapter) for adapter in fields.pop("adapters", ()))
    splits = tuple(fields.pop("splits", ()))
    return m.LoadSpec(adapters=adapters, splits=splits, **fields)


# Events of a turn are tuples, not maps: they are the hot path. `(request id, code, ...)`.
TOKENS, DONE, FAILED, QUEUED, ACCEPTED, STARTED, READ = 0, 1, 2, 3, 4, 5, 6


def event(item: Sequence[Any]) -> m.Event:
    """One event of a `turn` frame, without its request id."""
    code = item[1]
    if code == TOKENS:
        return m.Tokens(item[2], item[3], item[4], _logprobs(item[5]), item[6])
    if code == DONE:
        return m.Done(item[2], item[3], m.Usage(**item[4]), item[5])
    if code == QUEUED:
        return m.Queued(item[2])
    if code == READ:
        return m.PromptRead(_logprobs(item[2]))
    if code == ACCEPTED:
        return m.Accepted()
    if code == STARTED:
        return m.Started(item[2], item[3], item[4])
    return m.Failed(item[2], item[3])


def _logprobs(packed: Sequence[Any]) -> tuple[m.TokenLogprob, ...]:
    return tuple(m.TokenLogprob(lp[0], lp[1], lp[2], tuple(map(tuple, lp[3]))) for lp in packed)


def vectors(result: m.EmbedResult) -> list[list[float]]:
    """The embeddings as plain lists, for JSON."""
    return [list(struct.unpack(f"<{len(raw) // 4}f", raw)) for raw in result.vectors]
