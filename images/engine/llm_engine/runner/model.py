"""A model file in memory, and the context that computes with it.

Loading reports progress and may be abandoned from the progress callback. All failures are `LoadError` with a
text fit for the person who asked; the details llama.cpp printed are on standard error.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

from llm_engine.runner.library import because, errors, lib, memory_log
from llm_engine.runner.messages import NUMA, SPLIT_MODES, LoadSpec
from llm_engine.runner.room import available_ram
from llm_engine.runner.threads import default_threads

KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
POOLING_NAMES = {number: name for name, number in POOLING.items()}
MAX_SEQUENCES = 256
# llama.cpp keeps a row of logits for every sequence there could be, so idle prefixes do not get all of them.
IDLE_SEQUENCES = 56
# A processor's attention looks at every cell in use, in steps of 256: so many idle ones cost next to nothing.
IDLE_CELLS = 256
# Architectures whose memory sums up what has left the window.
COMPRESSED = ("deepseek4", "hy_v4", "dots3note")
# Weights of up to so many bytes are read in a moment.
SMALL = 1 << 30
# Models that keep one state per sequence pay for every sequence there could be, so they get few.
SPARE_STATES = 4


class LoadError(Exception):
    """The model could not be loaded; the text says why."""


def _choice(what: str, table: dict[str, int], value: str) -> int:
    if value not in table:
        raise LoadError(f"{what} {value!r} is not one of {', '.join(table)}")
    return table[value]


class Model:
    """Weights, vocabulary and adapters; contexts are made from it."""

    def __init__(self, spec: LoadSpec, on_progress: Callable[[float], bool]) -> None:
        self.spec = spec
        for path in (spec.model_path, *spec.splits):
            if not os.path.isfile(path):
                raise LoadError(f"no model file at {path}")
        if spec.numa:
            lib.llama_numa_init(_choice("numa", NUMA, spec.numa))
        self._keep: list[Any] = []
        self.mapped = spec.mmap if spec.mmap is not None else not self._worth_reading()
        self.handle = self._load([spec.model_path, *spec.splits], on_progress)
        self.adapters = [self._adapter(adapter.path) for adapter in spec.adapters]

    def _worth_reading(self) -> bool:
        """Whether to have the weights in memory of our own, where `pages` can make them faster to compute
        with. A large file is better mapped: that costs no time, and no memory that is not the cache's.
        """
        spec = self.spec
        if spec.num_gpu != 0 and lib.llama_supports_gpu_offload():
            return False
        size = sum(os.path.getsize(path) for path in (spec.model_path, *spec.splits))
        return size <= min(SMALL, available_ram() // 4)

    def _load(self, paths: Sequence[str], on_progress: Callable[[float], bool]) -> Any:
        spec = self.spec
        params = lib.llama_model_default_params()
        params.n_gpu_layers = spec.num_gpu
        params.main_gpu = spec.main_gpu
        params.split_mode = _choice("split_mode", SPLIT_MODES, spec.split_mode)
        params.load_mode = {(True, False): 1, (True, True): 3, (False, True): 2, (False, False): 0}[
            self.mapped, spec.mlock
        ]
        if spec.tensor_split:
            room = lib.llama_max_devices()
            shares = (ctypes.c_float * room)(*list(spec.tensor_split)[:room])
            params.tensor_split = shares
            self._keep.append(shares)
        callback = lib.llama_progress_callback(lambda fraction, _data: bool(on_progress(float(fraction))))
        self._keep.append(callback)
        params.progress_callback = callback
        files = (ctypes.c_char_p * len(paths))(*(path.encode() for path in paths))
        errors.clear()
        if len(paths) == 1:
            model = lib.llama_model_load_from_file(files[0], params)
        else:
            model = lib.llama_model_load_from_splits(files, len(paths), params)
        if not model:
            raise LoadError(f"llama.cpp could not load {paths[0]}{because()}")
        return model

    def _adapter(self, path: str) -> Any:
        if not os.path.isfile(path):
            raise LoadError(f"no adapter file at {path}")
        errors.clear()
        adapter = lib.llama_adapter_lora_init(self.handle, path.encode())
        if not adapter:
            raise LoadError(f"the adapter {path} does not fit this model{because()}")
        return adapter

    def meta(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        count = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        if count < 0:
            return None
        if count >= len(buffer):
            buffer = ctypes.create_string_buffer(count + 1)
            lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def architecture(self) -> str:
        return self.meta("general.architecture") or ""

    @property
    def trained_context(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def width(self) -> int:
        return int(lib.llama_model_n_embd_out(self.handle))

    @property
    def chat_template(self) -> str | None:
        raw = lib.llama_model_chat_template(self.handle, None)
        return raw.decode("utf-8", "replace") if raw else None

    @property
    def vocabulary(self) -> int:
        return int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.handle)))

    @property
    def pooling(self) -> str:
        """The pooling kind the file names; `none` for a model that generates."""
        value = self.meta(f"{self.architecture}.pooling_type")
        return POOLING_NAMES.get(int(value), "none") if value and value.lstrip("-").isdigit() else "none"

    @property
    def stateful(self) -> bool:
        """Whether memory of a sequence is one state that cannot be cut at will."""
        return bool(lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))

    @property
    def sliding_window(self) -> int:
        return int(lib.llama_model_n_swa(self.handle))

    @property
    def forgets(self) -> bool:
        """Whether its memory loses parts of a sequence by itself, in ways that twins do not prevent."""
        return self.architecture in COMPRESSED or (self.sliding_window > 0 and self.stateful)

    @property
    def encoder_only(self) -> bool:
        return not lib.llama_model_has_decoder(self.handle)

    def free(self) -> None:
        lib.llama_model_free(self.handle)


class Context:
    """A llama.cpp context: the cache cells and the compute buffers."""

    def __init__(
        self,
        model: Model,
        *,
        cells: int,
        batch: int,
        sequences: int,
        outputs: int = 0,
        ubatch: int = 512,
        pooling: str | None = None,
    ) -> None:
        spec = model.spec
        params = lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch
        params.n_ubatch = min(batch, ubatch)
        params.n_seq_max = sequences
        params.n_outputs_max = max(outputs, sequences) if outputs else 0
        self.threads = self._computing = spec.threads or default_threads()
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = _choice("flash_attn", FLASH_ATTN, spec.flash_attn)
        params.type_k = params.type_v = _choice("kv_type", KV_TYPES, spec.kv_type)
        params.kv_unified = True
        params.no_perf = True
        if pooling is not None:
            params.embeddings = True
            params.pooling_type = _choice("pooling", POOLING, pooling)
        errors.clear()
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            what = f"a context of {cells} tokens with {spec.kv_type} cache"
            raise LoadError(f"no memory for {what}, or a setting this model lacks{because()}")
        self.memory = lib.llama_get_memory(self.handle)
        self.cells = int(lib.llama_n_ctx(self.handle))
        self.batch = int(lib.llama_n_batch(self.handle))
        self.ubatch = int(lib.llama_n_ubatch(self.handle))
        self.sequences = int(lib.llama_n_seq_max(self.handle))
        self.cell_bytes = _cell_bytes(model, spec.kv_type)
        self._apply_adapters(model)

    def _apply_adapters(self, model: Model) -> None:
        if not model.adapters:
            return
        count = len(model.adapters)
        handles = (lib.llama_adapter_lora_p_ctypes * count)(*model.adapters)
        scales = (ctypes.c_float * count)(*[adapter.scale for adapter in model.spec.adapters])
        if lib.llama_set_adapters_lora(self.handle, handles, count, scales) != 0:
            raise LoadError("llama.cpp refused the adapters")

    def compute_with(self, threads: int) -> None:
        """From now on so many threads compute; `threads` is how many it was made for."""
        if threads != self._computing:
            lib.llama_set_n_threads(self.handle, threads, threads)
            self._computing = threads

    @property
    def pooling(self) -> str:
        return POOLING_NAMES.get(int(lib.llama_pooling_type(self.handle)), "none")

    def free(self) -> None:
        lib.llama_free(self.handle)


def _cell_bytes(model: Model, kv_type: str) -> int:
    """What one token takes in the cache at most."""
    heads = max(1, lib.llama_model_n_head(model.handle))
    width = lib.llama_model_n_embd(model.handle) * max(1, lib.llama_model_n_head_kv(model.handle)) // heads
    return int(2 * lib.llama_model_n_layer(model.handle) * width * (4 if kv_type == "f32" else 2))


def memory_by_device() -> tuple[dict[str, int], int, int]:
    """Bytes by device, in all, and on devices other than the processor's own memory."""
    totals = memory_log.totals()
    on_host = ("CPU", "Host")
    vram = sum(size for device, size in totals.items() if not any(word in device for word in on_host))
    return totals, sum(totals.values()), vram
