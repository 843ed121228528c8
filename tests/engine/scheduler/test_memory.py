"""How much a model needs, from the figures alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf import PoolingType
from llm_engine.runner.messages import LoadSpec
from llm_engine.scheduler.memory import FIXED_OVERHEAD, Shape, need, projector_beside, shape_of
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
    found = replace(shape_of(metadata, tensors), extra=4)
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


@pytest.mark.parametrize("pooling", [None, PoolingType.MEAN])
async def test_embedding_takes_what_was_reckoned(tmp_path: Path, pooling: PoolingType | None) -> None:
    """All of an input is computed at once, with what the output layer makes of each of its tokens."""
    path = random_gguf.build(tmp_path / "m.gguf", width=512, layers=4, heads=8, context=4096, pooling=pooling)
    runner = await RunnerProcess.start(
        LoadSpec(str(path), num_ctx=4096, cells=4096, embedding=True, threads=1)
    )
    taken = runner.info.size
    await runner.stop()
    wanted = need(shape(path), cells=4096, num_batch=512, kv_type="f16", embedding=True)
    assert taken <= wanted.total <= 1.5 * taken + 2 * FIXED_OVERHEAD
    assert wanted.compute > need(shape(path), cells=4096, num_batch=512, kv_type="f16").compute


async def test_a_draft_takes_what_was_reckoned(tmp_path: Path) -> None:
    """As many cells as the large model has for all of its sequences, and not as many for each of them."""
    path = random_gguf.build(tmp_path / "m.gguf", width=512, layers=4, heads=8, context=16384)
    spec = LoadSpec(str(path), num_ctx=16384, num_parallel=4, cells=16384, threads=1)
    taken = []
    for draft in (None, str(path)):
        runner = await RunnerProcess.start(replace(spec, draft=draft))
        taken.append(runner.info.size)
        await runner.stop()
    own = shape(path)
    alone = need(own, cells=16384, num_batch=512, kv_type="f16")
    both = need(replace(own, extra=own.weights, draft=own), cells=16384, num_batch=512, kv_type="f16")
    assert taken[1] <= both.total <= 1.2 * taken[1] + 2 * FIXED_OVERHEAD
    assert taken[1] - taken[0] <= both.total - alone.total


def test_what_looks_both_ways_makes_no_logits() -> None:
    metadata = {"general.architecture": "bert", "bert.attention.causal": False, "bert.vocab_size": 30522}
    assert shape_of(metadata, []).n_vocab == 0


def test_an_encoder_of_pictures_needs_room_to_compute() -> None:
    """CLIP of 336 pixels in patches of 14: 576 of them, which all look at each other."""
    clip = {
        "clip.vision.image_size": 336,
        "clip.vision.patch_size": 14,
        "clip.vision.embedding_length": 1024,
        "clip.vision.feed_forward_length": 4096,
        "clip.vision.attention.head_count": 16,
    }
    assert projector_beside(clip) == 4 * 576 * (8 * 1024 + 4096 + 16 * 576)
    assert projector_beside({"clip.has_audio_encoder": True}) == 0
