"""Names and sizes of the tensor types that llama.cpp knows, and the names of whole-file types."""

from __future__ import annotations

from functools import cache

from llm_engine.models.errors import InvalidGGUF


@cache
def _block_sizes() -> dict[int, tuple[str, int, int]]:
    # Imported late: the gguf package brings numpy along, which a listing of names must not wait for.
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, block, size) for kind, (block, size) in GGML_QUANT_SIZES.items()}


@cache
def _file_types() -> dict[int, str]:
    from gguf.constants import LlamaFileType

    return {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}


def file_type_name(number: int) -> str:
    name = _file_types().get(number, "")
    return "" if name == "GUESSED" else name


def tensor_type_name(kind: int) -> str:
    return _block_sizes()[kind][0]


def tensor_bytes(name: str, kind: int, shape: tuple[int, ...]) -> int:
    known = _block_sizes().get(kind)
    if known is None:
        raise InvalidGGUF(f"GGUF tensor {name[:80]!r} has the unknown type {kind}")
    _, block, size = known
    row = shape[0] if shape else 1
    if row % block:
        raise InvalidGGUF(f"GGUF tensor {name[:80]!r} has rows of {row} values, not a multiple of {block}")
    elements = 1
    for length in shape:
        elements *= length
    return elements // block * size
