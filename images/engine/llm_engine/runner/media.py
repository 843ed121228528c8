"""Images and sounds in a prompt, through llama.cpp's `mtmd`.

Decoding a file and running the vision or audio encoder happen on a thread of their own, before the request
reaches the loop; only the last step, filling cells with the finished embeddings, takes a turn. Embeddings are
kept by the hash of the file, so a picture that is sent again with each turn of a conversation is encoded
once.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.library import because, errors, lib, start_media
from llm_engine.runner.messages import Media
from llm_engine.runner.model import FLASH_ATTN, Context, LoadError, Model
from llm_engine.runner.threads import default_threads
from llm_engine.runner.vocab import TokenArray

KEPT_BYTES = 512 << 20
_TEXT = 0  # MTMD_INPUT_CHUNK_TYPE_TEXT


class MediaError(ValueError):
    """A file that is no picture or sound this model understands."""


class ChunkHandle:
    """A chunk of llama.cpp's, freed with the last branch that uses it."""

    def __init__(self, pointer: Any, free: Callable[[Any], None]) -> None:
        self.pointer = pointer
        self._free = free

    def __del__(self) -> None:
        self._free(self.pointer)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Embeddings that fill `tokens` cells and `positions` positions, starting at a token of the prompt."""

    start: int
    tokens: int
    positions: int
    handle: ChunkHandle
    embeddings: NDArray[np.float32]

    @property
    def end(self) -> int:
        return self.start + self.tokens


def pseudo_tokens(key: bytes, count: int) -> TokenArray:
    """Negative token ids that stand for a medium in the prefix tree: the same file gives the same ones."""
    seed = int.from_bytes(hashlib.sha256(key).digest(), "little")
    return (-np.random.default_rng(seed).integers(2, 2**31 - 1, size=count)).astype(np.int32)


def _is_sound(data: bytes) -> bool:
    """By how its file begins: WAV, MP3 or FLAC."""
    wave = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    return wave or data.startswith((b"ID3", b"\xff\xfb", b"fLaC"))


def _hash(media: Media) -> bytes:
    return hashlib.sha256(media.data).hexdigest().encode()


def slice_numbers(chunks: Sequence[bytes], media: Sequence[bytes]) -> list[int]:
    """For each chunk, the name of whose medium is given, its number among the chunks of that medium. A large
    picture comes in several slices, and the same picture may stand at several places of a prompt.
    """
    each = {name: max(1, chunks.count(name) // media.count(name)) for name in set(media)}
    seen: Counter[bytes] = Counter()
    numbers = []
    for name in chunks:
        numbers.append(seen[name] % each.get(name, 1))
        seen[name] += 1
    return numbers


class Projector:
    """The encoder file beside a model. Not thread-safe: one thread encodes."""

    def __init__(self, model: Model) -> None:
        path = model.spec.mmproj
        assert path is not None
        if not os.path.isfile(path):
            raise LoadError(f"no projector file at {path}")
        self._m: Any = importlib.import_module("llama_cpp.mtmd_cpp")
        start_media(self._m)
        params = self._m.mtmd_context_params_default()
        params.use_gpu = model.spec.num_gpu != 0
        params.print_timings = False
        params.warmup = False
        params.n_threads = model.spec.threads or default_threads()
        params.flash_attn_type = FLASH_ATTN[model.spec.flash_attn]
        errors.clear()
        self.handle = self._m.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self.handle:
            raise LoadError(f"the projector {path} does not fit this model{because()}")
        self._width = int(lib.llama_model_n_embd_inp(model.handle))
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._kept_bytes = 0
        self.encoded = 0
        """How many chunks were really encoded."""

    @property
    def vision(self) -> bool:
        return bool(self._m.mtmd_support_vision(self.handle))

    @property
    def audio(self) -> bool:
        return bool(self._m.mtmd_support_audio(self.handle))

    @property
    def many_positions(self) -> bool:
        """Whether a picture's cells do not lie at consecutive positions (M-RoPE)."""
        return bool(self._m.mtmd_decode_use_mrope(self.handle))

    def read(self, parts: Sequence[str | Media], *, add_special: bool) -> tuple[TokenArray, list[Chunk]]:
        """Tokens of a mixed prompt, pseudo-tokens where media are, and the media's embeddings."""
        chunks = self._m.mtmd_input_chunks_init()
        bitmaps = [self._bitmap(part) if isinstance(part, Media) else None for part in parts]
        try:
            self._tokenize(chunks, parts, bitmaps, add_special)
            return self._collect(chunks, [_hash(part) for part in parts if isinstance(part, Media)])
        finally:
            for bitmap in bitmaps:
                if bitmap is not None:
                    self._m.mtmd_bitmap_free(bitmap)
            self._m.mtmd_input_chunks_free(chunks)

    def _bitmap(self, media: Media) -> Any:
        buffer = (ctypes.c_uint8 * len(media.data)).from_buffer_copy(media.data)
        bitmap = self._m.mtmd_helper_bitmap_init_from_buf(self.handle, buffer, len(media.data), False)
        if not bitmap and not self.audio and _is_sound(media.data):
            raise MediaError("this model does not take sound")
        if not bitmap:
            raise MediaError(f"a file of {len(media.data)} bytes is no image or sound that can be read")
        sound = bool(self._m.mtmd_bitmap_is_audio(bitmap))
        if sound and not self.audio:
            raise MediaError("this model does not take sound")
        if not sound and not self.vision:
            raise MediaError("this model does not take images")
        self._m.mtmd_bitmap_set_id(bitmap, _hash(media))
        return bitmap

    def _tokenize(self, chunks: Any, parts: Sequence[str | Media], bitmaps: list[Any], special: bool) -> None:
        kept: list[Any] = []
        array = (ctypes.POINTER(self._m.mtmd_input_part) * len(parts))()
        for i, part in enumerate(parts):
            item = self._m.mtmd_input_part()
            if isinstance(part, Media):
                item.bitmap = bitmaps[i]
            else:
                raw = part.encode()
                text = self._m.mtmd_input_text(raw, len(raw), False, True)
                item.text = ctypes.pointer(text)
                kept.append(text)
            kept.append(item)
            array[i] = ctypes.pointer(item)
        verdict = self._m.mtmd_tokenize_from_parts(self.handle, chunks, array, len(parts), special)
        if verdict != 0:
            raise MediaError(f"an image or sound could not be prepared (code {verdict})")

    def _collect(self, chunks: Any, names: list[bytes]) -> tuple[TokenArray, list[Chunk]]:
        """`names`: of the media, as their chunks have them."""
        tokens: list[TokenArray] = []
        media: list[Chunk] = []
        count_chunks = self._m.mtmd_input_chunks_size(chunks)
        found = [self._m.mtmd_input_chunks_get(chunks, i) for i in range(count_chunks)]
        numbers = slice_numbers([self._name(chunk) for chunk in found], names)
        at = 0
        for chunk, number in zip(found, numbers, strict=True):
            count = int(self._m.mtmd_input_chunk_get_n_tokens(chunk))
            if self._m.mtmd_input_chunk_get_type(chunk) == _TEXT:
                size = ctypes.c_size_t()
                pointer = self._m.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
                text = np.ctypeslib.as_array(pointer, (size.value,)) if size.value else np.empty(0)
                tokens.append(text.astype(np.int32, copy=True))
                at += size.value
                continue
            key = self._name(chunk) + number.to_bytes(4, "little") + count.to_bytes(4, "little")
            positions = int(self._m.mtmd_input_chunk_get_n_pos(chunk))
            copy = ChunkHandle(self._m.mtmd_input_chunk_copy(chunk), self._m.mtmd_input_chunk_free)
            media.append(Chunk(at, count, positions, copy, self._encode(key, chunk, count)))
            tokens.append(pseudo_tokens(key, count))
            at += count
        joined = np.concatenate(tokens) if tokens else np.empty(0, dtype=np.int32)
        return joined, media

    def _name(self, chunk: Any) -> bytes:
        """The hash of the medium that a chunk is of, nothing for text."""
        if self._m.mtmd_input_chunk_get_type(chunk) == _TEXT:
            return b""
        name = self._m.mtmd_input_chunk_get_id(chunk)
        if not name:
            raise MediaError("an image or sound could not be told from others")
        return bytes(name)

    def _encode(self, key: bytes, chunk: Any, count: int) -> NDArray[np.float32]:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        if self._m.mtmd_encode_chunk(self.handle, chunk) != 0:
            raise MediaError("the encoder failed on an image or sound")
        self.encoded += 1
        pointer = self._m.mtmd_get_output_embd(self.handle)
        made = np.ctypeslib.as_array(pointer, (count, self._width)).astype(np.float32, copy=True)
        self._kept[key] = made
        self._kept_bytes += made.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return made

    def in_order(self, chunk: Chunk) -> bool:
        """Whether its cells are filled like those of text, each one seeing only those before it, so that it
        can be taken in by pieces.
        """
        return not (
            self.many_positions or self._m.mtmd_decode_use_non_causal(self.handle, chunk.handle.pointer)
        )

    def fill(self, context: Context, chunk: Chunk, sequence: int, position: int) -> int:
        """Put a chunk's embeddings into cells, all at once; llama.cpp's verdict."""
        after = ctypes.c_int32()
        return int(
            self._m.mtmd_helper_decode_image_chunk(
                self.handle,
                context.handle,
                chunk.handle.pointer,
                chunk.embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                position,
                sequence,
                context.batch,
                ctypes.byref(after),
                self._m.mtmd_helper_post_decode_callback(),
                None,
            )
        )


def fill_part(context: Context, rows: NDArray[np.float32], sequence: int, position: int) -> int:
    """Put embeddings into cells from a position on, no more than a batch of them; llama.cpp's verdict."""
    count = len(rows)
    batch = lib.llama_batch()
    batch.n_tokens = count
    batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    batch.pos = (ctypes.c_int32 * count)(*range(position, position + count))
    batch.n_seq_id = (ctypes.c_int32 * count)(*[1] * count)
    owner = ctypes.pointer(ctypes.c_int32(sequence))
    batch.seq_id = (ctypes.POINTER(ctypes.c_int32) * count)(*[owner] * count)
    batch.logits = (ctypes.c_int8 * count)()
    return int(lib.llama_decode(context.handle, batch))
