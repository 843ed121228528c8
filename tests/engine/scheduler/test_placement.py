"""Which layers go to which GPU, by the rules of llama.cpp, from the figures alone."""

from __future__ import annotations

from llm_engine.scheduler.memory import GPU_RESERVE, Gpu, Need, Shape, need
from llm_engine.scheduler.placement import Placement, Wishes, place

GIB = 1 << 30
LLAMA = Shape(
    layers=(GIB // 8,) * 32, other=GIB // 2, kv_elements=(2048,) * 32, n_embd=4096, n_vocab=128_000, n_head=32
)
WANTED = need(LLAMA, cells=4096, num_batch=512, kv_type="f16")
LAYER = LLAMA.layers[0] + WANTED.kv // 32


def gpus(*free: int) -> list[Gpu]:
    return [Gpu(index, "g", 80 * GIB, room) for index, room in enumerate(free)]


def placed(found: list[Gpu], wanted: Need = WANTED, shape: Shape = LLAMA, **wishes: object) -> Placement:
    return place(shape, wanted, found, Wishes(**wishes))  # type: ignore[arg-type]


def room_for(size: int) -> int:
    return size + GPU_RESERVE + WANTED.compute


def test_without_a_gpu_everything_is_in_main_memory() -> None:
    assert placed([]) == Placement(ram=WANTED.total, whole=True)


def test_a_model_that_fits_goes_whole_to_the_freest_gpu() -> None:
    place_ = placed(gpus(2 * GIB, 40 * GIB))
    assert place_.whole and (place_.num_gpu, place_.main_gpu) == (33, 1)
    assert place_.tensor_split == (0.0, 33.0) and set(place_.vram) == {1}
    assert place_.ram == 0


def test_input_embeddings_stay_in_main_memory() -> None:
    tied = Shape(**{**vars(LLAMA), "input": 0})
    own = Shape(**{**vars(LLAMA), "input": GIB // 4})
    assert placed(gpus(40 * GIB), shape=tied).vram[0] - placed(gpus(40 * GIB), shape=own).vram[0] == GIB // 4
    assert placed(gpus(40 * GIB), shape=own).ram == GIB // 4


def test_a_model_that_does_not_fit_is_split_and_the_output_goes_first() -> None:
    place_ = placed(gpus(room_for(2 * GIB)))
    assert not place_.whole
    assert place_.num_gpu == 1 + (2 * GIB - LLAMA.other) // LAYER
    assert place_.vram[0] <= room_for(2 * GIB)
    # Both sides compute, so both need buffers.
    assert place_.ram == WANTED.total - (place_.vram[0] - WANTED.compute - GPU_RESERVE)
    assert placed(gpus(room_for(LLAMA.other - 1))).num_gpu == 0


def test_the_fewest_gpus_that_hold_it_are_used_evenly() -> None:
    half = room_for(4 * GIB)
    place_ = placed(gpus(half, half, half))
    assert place_.whole and place_.num_gpu == 33 and len(place_.vram) == 2
    counts = [count for count in place_.tensor_split if count]
    assert sum(counts) == 33 and abs(counts[0] - counts[1]) <= 5
    assert all(taken <= half for taken in place_.vram.values())


def test_no_gpu_gets_more_than_it_holds() -> None:
    """Shares by room alone would put a layer too many on the small one."""
    small, large = room_for(LAYER + LAYER // 2), room_for(31 * LAYER + LLAMA.other)
    place_ = placed(gpus(small, large))
    assert place_.whole and place_.tensor_split == (1.0, 32.0)


def test_spread_uses_all_of_them() -> None:
    place_ = placed(gpus(40 * GIB, 40 * GIB), spread=True)
    assert place_.whole and len(place_.vram) == 2


def test_num_gpu_and_reserve_are_honoured() -> None:
    assert placed(gpus(40 * GIB), num_gpu=7).num_gpu == 7 and placed(gpus(40 * GIB), num_gpu=7).fits
    assert placed(gpus(40 * GIB), num_gpu=0).num_gpu == 0
    assert placed(gpus(40 * GIB), num_gpu=999).num_gpu == 33
    assert placed(gpus(40 * GIB), reserve=40 * GIB).num_gpu == 0
    forced = placed(gpus(GIB), num_gpu=33)
    assert forced.num_gpu == 33 and not forced.fits


def test_the_operators_shares_and_the_main_gpu_are_honoured() -> None:
    place_ = placed(gpus(40 * GIB, 40 * GIB), shares=(1, 3))
    assert place_.tensor_split == (9.0, 24.0)  # a part is where its beginning is, as in llama.cpp
    assert not placed(gpus(GIB, 40 * GIB), shares=(3, 1)).whole
    assert placed(gpus(20 * GIB, 40 * GIB), main_gpu=0).main_gpu == 0


def test_a_lost_gpu_keeps_the_places_of_the_others() -> None:
    assert placed(gpus(40 * GIB, 40 * GIB)[1:]).tensor_split == (0.0, 33.0)


def test_one_gpu_alone_where_models_are_not_to_be_split() -> None:
    half = room_for(4 * GIB)
    place_ = placed(gpus(half, half), single=True)
    assert not place_.whole and list(place_.vram) == [0]
    assert list(placed(gpus(half, half), single=True, main_gpu=1).vram) == [1]
