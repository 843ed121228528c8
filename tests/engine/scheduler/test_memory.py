"""How much a model needs and where it goes, from the figures alone."""

from __future__ import annotations

from llm_engine.scheduler.memory import GPU_RESERVE, Gpu, Shape, need, place, shape_of

GIB = 1 << 30
LLAMA = Shape(
    layers=(GIB // 8,) * 32, other=GIB // 2, kv_elements=(2048,) * 32, n_embd=4096, n_vocab=128_000, n_head=32
)


def gpus(*free: int) -> list[Gpu]:
    return [Gpu(index, "g", 80 * GIB, room) for index, room in enumerate(free)]


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
    shape = shape_of(metadata, tensors, extra=4)
    assert shape.layers == (5, 7) and shape.other == 13 and shape.weights == 29
    assert shape.kv_elements == (128, 64)  # two times the width of a head, times the heads
    assert (shape.n_ctx_train, shape.n_vocab) == (2048, 100)


def test_cache_grows_with_the_context_and_shrinks_with_its_type() -> None:
    small = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    assert small.kv == 4096 * 2 * 2048 * 32
    assert need(LLAMA, cells=8192, num_batch=512, kv_type="f16").kv == 2 * small.kv
    assert need(LLAMA, cells=4096, num_batch=512, kv_type="q8_0").kv < 0.6 * small.kv
    assert small.weights == 32 * (GIB // 8) + GIB // 2


def test_without_a_gpu_everything_is_in_main_memory() -> None:
    wanted = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    placed = place(LLAMA, wanted, [], reserve=0, num_gpu=None, spread=False)
    assert (placed.num_gpu, placed.ram) == (0, wanted.total)


def test_a_model_that_fits_goes_whole_to_the_freest_gpu() -> None:
    wanted = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    placed = place(LLAMA, wanted, gpus(2 * GIB, 40 * GIB), reserve=0, num_gpu=None, spread=False)
    assert (placed.num_gpu, placed.main_gpu) == (33, 1)
    assert placed.tensor_split[0] == 0.0


def test_a_model_that_does_not_fit_is_split() -> None:
    wanted = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    room = 2 * GIB + GPU_RESERVE + wanted.compute
    placed = place(LLAMA, wanted, gpus(room), reserve=0, num_gpu=None, spread=False)
    per_layer = LLAMA.layers[0] + wanted.kv // 32
    assert placed.num_gpu == 2 * GIB // per_layer
    assert placed.ram == wanted.total - placed.vram


def test_two_gpus_hold_what_one_cannot() -> None:
    wanted = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    room = 3 * GIB + GPU_RESERVE + wanted.compute
    placed = place(LLAMA, wanted, gpus(room, room), reserve=0, num_gpu=None, spread=False)
    assert placed.num_gpu == 33 and all(placed.tensor_split)


def test_num_gpu_and_reserve_are_honoured() -> None:
    wanted = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
    assert place(LLAMA, wanted, gpus(40 * GIB), reserve=0, num_gpu=7, spread=False).num_gpu == 7
    assert place(LLAMA, wanted, gpus(40 * GIB), reserve=0, num_gpu=0, spread=False).num_gpu == 0
    assert place(LLAMA, wanted, gpus(40 * GIB), reserve=40 * GIB, num_gpu=None, spread=False).num_gpu == 0
