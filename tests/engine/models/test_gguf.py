"""Reading GGUF headers: what is right, what is hostile, and how long it takes."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from gguf import GGUFReader
from llm_engine.models.errors import CreateError, InvalidGGUF
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.headers import Headers
from llm_engine.models.gguf.merge import merge, shard_order

from tests.support.models import ModelMaker


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(
    keys: bytes = b"", tensors: bytes = b"", counts: tuple[int, int] = (0, 0), version: int = 3
) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + keys + tensors


def tensor(name: str, offset: int = 0, *, kind: int = 0, shape: tuple[int, ...] = (4,)) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def test_agrees_with_the_reference_reader(chat_gguf: Path) -> None:
    ours, theirs = GGUFFile.open(chat_gguf), GGUFReader(chat_gguf)
    names = [key for key in theirs.fields if not key.startswith("GGUF.")]
    assert list(ours.metadata) == names
    assert ours.array("tokenizer.ggml.tokens") == theirs.fields["tokenizer.ggml.tokens"].contents()
    assert ours.array("tokenizer.ggml.token_type") == theirs.fields["tokenizer.ggml.token_type"].contents()
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.name, mine.offset, mine.size) == (other.name, other.data_offset, other.n_bytes)
        assert list(mine.shape) == [int(length) for length in other.shape]
    assert ours.parameter_count == sum(int(item.n_elements) for item in theirs.tensors)
    assert ours.metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-5


BAD = {
    "empty": (b"", "not in GGUF format"),
    "short": (b"GGUF", "not in GGUF format"),
    "magic": (b"GGML" + bytes(40), "not in GGUF format"),
    "version": (header(version=1) + bytes(20), "unsupported GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(20), "big-endian"),
    "keys": (header(counts=(0, 1 << 60)), "announces"),
    "tensors": (header(counts=(1 << 60, 0)), "announces"),
    "key length": (header(struct.pack("<Q", 1 << 40) + bytes(20), counts=(0, 1)), "too long"),
    "text length": (header(text("k") + struct.pack("<IQ", 8, 1 << 40), counts=(0, 1)), "ends at byte"),
    "value type": (header(text("k") + struct.pack("<I", 99) + bytes(9), counts=(0, 1)), "unknown type 99"),
    "array length": (
        header(text("k") + struct.pack("<IIQ", 9, 4, 1 << 60), counts=(0, 1)),
        "longer than the file",
    ),
    "array type": (header(text("k") + struct.pack("<IIQ", 9, 77, 1), counts=(0, 1)), "array of unknown type"),
    "array of texts": (
        header(
            text("k") + struct.pack("<IIQ", 9, 8, 2) + struct.pack("<Q", 1 << 62) + bytes(8), counts=(0, 1)
        ),
        "longer than the file",
    ),
    "nesting": (
        header(text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9 + bytes(64), counts=(0, 1)),
        "nested",
    ),
    "key twice": (header((text("k") + struct.pack("<IB", 0, 1)) * 2, counts=(0, 2)), "occurs twice"),
    "alignment": (
        header(text("general.alignment") + struct.pack("<II", 4, 3), counts=(0, 1)),
        "power of two",
    ),
    "dimensions": (header(tensors=tensor("t", shape=(1,) * 9), counts=(1, 0)), "9 dimensions"),
    "zero shape": (header(tensors=tensor("t", shape=(0,)), counts=(1, 0)), "impossible shape"),
    "huge shape": (header(tensors=tensor("t", shape=(1 << 40, 1 << 40)), counts=(1, 0)), "impossible shape"),
    "tensor type": (header(tensors=tensor("t", kind=999), counts=(1, 0)), "unknown type 999"),
    "block": (header(tensors=tensor("t", kind=8, shape=(33,)), counts=(1, 0)) + bytes(99), "not a multiple"),
    "many keys": (header(b"\0" * 13 * 65_537, counts=(0, 65_537)), "at most 65536"),
    "many tensors": (header(b"\0" * 24 * 65_537, counts=(65_537, 0)), "at most 65536"),
    "many arrays": (
        header(
            text("k") + struct.pack("<IIQ", 9, 9, 2_000_000) + struct.pack("<IQ", 0, 0) * 2_000_000,
            counts=(0, 1),
        ),
        "arrays in arrays",
    ),
    "many texts": (
        header(text("k") + struct.pack("<IIQ", 9, 8, 5_000_000) + bytes(8 * 5_000_000), counts=(0, 1)),
        "5000000 texts in arrays",
    ),
    "long text": (
        header(text("k") + struct.pack("<IQ", 8, 17 << 20) + bytes(17 << 20), counts=(0, 1)),
        "longer than 16777216",
    ),
    "long texts": (
        header(
            b"".join(text(k) + struct.pack("<IQ", 8, 12 << 20) + bytes(12 << 20) for k in "abc"),
            counts=(0, 3),
        ),
        "more than 33554432 characters",
    ),
    "truncated": (header(tensors=tensor("t"), counts=(1, 0)), "truncated"),
    "overlap": (header(tensors=tensor("a") + tensor("b", 8), counts=(2, 0)) + bytes(99), "overlaps"),
    "same name": (
        header(tensors=tensor("a") + tensor("a", 32), counts=(2, 0)) + bytes(99),
        "two tensors of one name",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    raw, why = BAD[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    began = time.process_time()
    with pytest.raises(InvalidGGUF, match=why):
        GGUFFile.open(path)
    assert time.process_time() - began < 2


def test_kept_headers_take_a_bounded_memory(tmp_path: Path) -> None:
    headers, paths = Headers(limit=20 << 20), []
    for name in "abcdefgh":
        paths.append(tmp_path / name)
        value = struct.pack("<IQ", 8, 1 << 20) + name.encode() * (1 << 20)
        paths[-1].write_bytes(header(text("k") + value, counts=(0, 1)))
    first = [headers.read(path) for path in paths]
    assert headers.footprint <= 20 << 20
    assert headers.read(paths[-1]) is first[-1]
    assert headers.read(paths[0]) is not first[0]


def test_damaged_headers_never_crash_nor_hang(chat_gguf: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    good = chat_gguf.read_bytes()
    path = tmp_path / "x.gguf"
    start = time.monotonic()
    for _ in range(400):
        raw = bytearray(good[: chance.choice([len(good), chance.randrange(24, len(good))])])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(0, min(len(raw), 9000))
            raw[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])[: len(raw) - at]
        path.write_bytes(raw)
        try:
            found = GGUFFile.open(path)
        except InvalidGGUF:
            continue
        assert all(tensor.offset + tensor.size <= len(raw) for tensor in found.tensors)
        assert found.file_type
    assert time.monotonic() - start < 60


def test_the_size_of_the_file_does_not_matter(chat_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    path.write_bytes(chat_gguf.read_bytes())
    with path.open("r+b") as file:
        file.truncate(100 << 30)  # sparse
    start = time.monotonic()
    assert GGUFFile.open(path).architecture == "llama"
    assert time.monotonic() - start < 1


def split(source: Path, folder: Path, count: int) -> list[Path]:
    """The file as shards: each has the metadata, with its own split keys, and its part of the tensors."""
    gguf = GGUFFile.open(source)
    paths = []
    for number in range(count):
        part = gguf.tensors[number::count]
        own = b"".join(
            text(key) + struct.pack("<IH", 2, value)
            for key, value in (("split.no", number), ("split.count", count))
        )
        plain = text("general.architecture") + struct.pack("<I", 8) + text("llama")
        heads, data = b"", b""
        for item in part:
            shape = struct.pack(f"<I{len(item.shape)}Q", len(item.shape), *item.shape)
            heads += text(item.name) + shape + struct.pack("<IQ", item.kind, len(data))
            raw = source.read_bytes()[item.offset : item.offset + item.size]
            data += raw + bytes(-len(raw) % 32)
        head = header(plain + own, heads, (len(part), 3))
        path = folder / f"m-{number + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(head + bytes(-len(head) % 32) + data)
        paths.append(path)
    return paths


def test_shards_are_joined(chat_gguf: Path, tmp_path: Path) -> None:
    shards = {path.name: GGUFFile.open(path) for path in reversed(split(chat_gguf, tmp_path, 3))}
    order = shard_order(shards)
    assert order == sorted(shards)
    size, pieces = merge([shards[name] for name in order])
    joined = tmp_path / "joined.gguf"
    joined.write_bytes(b"".join(pieces))
    assert joined.stat().st_size == size
    whole, source = GGUFFile.open(joined), GGUFFile.open(chat_gguf)
    assert list(whole.metadata) == ["general.architecture"]

    def contents(gguf: GGUFFile) -> dict[str, bytes]:
        raw = gguf.path.read_bytes()
        return {item.name: raw[item.offset : item.offset + item.size] for item in gguf.tensors}

    assert contents(whole) == contents(source)


def test_shards_that_do_not_belong_together(chat_gguf: Path, tmp_path: Path, make_gguf: ModelMaker) -> None:
    first, second, third = (GGUFFile.open(path) for path in split(chat_gguf, tmp_path, 3))
    with pytest.raises(CreateError, match="one of 3 shards"):
        shard_order({"a": first})
    with pytest.raises(CreateError, match=r"missing: \[2\] of 3"):
        shard_order({"a": first, "c": third})
    with pytest.raises(CreateError, match="are the same shard"):
        shard_order({"a": second, "b": second})
    with pytest.raises(CreateError, match="a model of its own"):
        shard_order({"a": first, "b": GGUFFile.open(make_gguf("x"))})
