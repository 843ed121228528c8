"""Text to tokens and back, for one model.

Tokenising is thread-safe in llama.cpp and releases the interpreter lock, so it runs on the thread that reads
requests and never holds up a turn. Pieces are cached: a token's bytes are asked for once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_engine.runner.library import lib

TokenArray = NDArray[np.int32]
_NULL = -1


class Vocab:
    """The tokeniser of a loaded model."""

    def __init__(self, model: Any) -> None:
        self.handle: Any = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self.handle)
        self.bos: int = lib.llama_vocab_bos(self.handle)
        self.eos: int = lib.llama_vocab_eos(self.handle)
        self.eot: int = lib.llama_vocab_eot(self.handle)
        self.add_bos = bool(lib.llama_vocab_get_add_bos(self.handle))
        self.add_eos = bool(lib.llama_vocab_get_add_eos(self.handle))
        self.add_sep = bool(lib.llama_vocab_get_add_sep(self.handle))
        self._plain: dict[int, bytes] = {}
        self._special: dict[int, bytes] = {}
        self._end: frozenset[int] | None = None

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends generation."""
        if self._end is None:
            is_end = lib.llama_vocab_is_eog
            self._end = frozenset(i for i in range(self.size) if is_end(self.handle, i))
        return self._end

    def tokenize(
        self, text: str | bytes, *, add_special: bool = True, parse_special: bool = True
    ) -> TokenArray:
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        room = len(raw) + 16
        buffer = np.empty(room, dtype=np.int32)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = lib.llama_tokenize(self.handle, raw, len(raw), pointer, room, add_special, parse_special)
        if count < 0:
            buffer = np.empty(-count, dtype=np.int32)
            pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = lib.llama_tokenize(
                self.handle, raw, len(raw), pointer, -count, add_special, parse_special
            )
        return buffer[:count].copy()

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; a control token stands for nothing unless `special`."""
        cache = self._special if special else self._plain
        found = cache.get(token)
        if found is None:
            found = cache[token] = self._read_piece(token, special)
        return found

    def _read_piece(self, token: int, special: bool) -> bytes:
        if not 0 <= token < self.size:
            return b""
        buffer = ctypes.create_string_buffer(64)
        count = lib.llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = lib.llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, special)
        return buffer.raw[:count]

    def detokenize(self, tokens: Sequence[int] | TokenArray, *, special: bool = True) -> bytes:
        if len(tokens) == 0:
            return b""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        self.check(ids)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        room = 16 * len(ids) + 64
        buffer = ctypes.create_string_buffer(room)
        count = lib.llama_detokenize(self.handle, pointer, len(ids), buffer, room, False, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = lib.llama_detokenize(self.handle, pointer, len(ids), buffer, -count, False, special)
        return buffer.raw[:count]

    def check(self, ids: Iterable[int] | TokenArray) -> None:
        """Refuse ids that are not in the vocabulary: llama.cpp would fail the whole batch for one."""
        array = np.asarray(ids)
        if array.size and (int(array.min()) < 0 or int(array.max()) >= self.size):
            worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
            raise ValueError(f"token id {worst} is not in the vocabulary of {self.size}")

    def text_of(self, token: int) -> str:
        """A special token as the text templates use for it; empty where the model has none."""
        if token == _NULL:
            return ""
        return self.piece(token, special=True).decode("utf-8", "replace")

    def fim_tokens(self) -> dict[str, int]:
        """The fill-in-the-middle tokens the model has."""
        found = {name: getattr(lib, f"llama_vocab_fim_{name}")(self.handle) for name in ("pre", "suf", "mid")}
        return {name: token for name, token in found.items() if token != _NULL}
