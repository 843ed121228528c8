"""How much a model needs, from the figures alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler.memory import FIXED_OVERHEAD, Shape, need, shape_of
from llm_engine.scheduler.process import RunnerProcess

from tests.support import random_gguf
from tests.support.model_headers import shape

GIB = 1 << 30
LLAMA = Shape(
    layers=(GIB // 8,) * 32, other=GIB // 2, kv_elements=(2048,) * 32, n_embd=4096, n_vocab=128_000, n_head=32
)


def test_shape_is_read_from_the_header() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": [4, 2],
        "llama.context_length": 2048,
        "llama.vocab_size": 100,
    }
    tensors = [
        ("token_embd.weight", 10),
        ("blk.0.attn_q.weight", 5),
        ("blk.1.ffn_up.weight", 7),
        ("output.weight", 3),
    ]
    found = shape_of(metadata, tensors, extra=4)
    assert found.layers == (5, 7) and found.other == 13 and found.weights == 29
    assert found.input == 10  # it stays in main memory, as there is an output of its own
    assert shape_of(metadata, tensors[:-1]).input == 0
    assert found.kv_elements == (128, 64)  # two times the width of a head, times the heads
    assert (found.n_ctx_train, found.n_vocab) == (2048, 100)


def test_cache_grows_with_the_context_and_shrinks_with_its_type() -> None:
    small = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    assert small.kv == 4096 * 2 * 2048 * 32
    assert need(LLAMA, cells=8192, num_batch=512, kv_type="f16").kv == 2 * small.kv
    assert need(LLAMA, cells=4096, num_batch=512, kv_type="q8_0").kv < 0.6 * small.kv
    assert small.weights == 32 * (GIB // 8) + GIB // 2


def test_attention_without_flash_keeps_scores_for_every_head() -> None:
    flash = need(LLAMA, cells=8192, num_batch=512, kv_type="f16")
    plain = need(LLAMA, cells=8192, num_batch=512, kv_type="f16", flash=False)
    assert plain.compute - flash.compute == 512 * 8192 * 4 * 32


@pytest.mark.parametrize(("flash", "kv"), [("auto", "f16"), ("off", "f16"), ("auto", "q8_0")])
async def test_it_is_what_llama_cpp_takes_and_a_little_more(tmp_path: Path, flash: str, kv: str) -> None:
    path = random_gguf.build(tmp_path / "m.gguf", width=512, layers=4, heads=8, context=16384)
    spec = LoadSpec(str(path), num_ctx=16384, cells=16384, flash_attn=flash, kv_type=kv, threads=1)
    runner = await RunnerProcess.start(spec)
    taken = runner.info.size
    await runner.stop()
    wanted = need(shape(path), cells=16384, num_batch=spec.num_batch, kv_type=kv, flash=flash != "off")
    assert taken <= wanted.total <= 1.2 * taken + 2 * FIXED_OVERHEAD
