"""Images and sounds through the loop, against llama.cpp's own way of putting them into a context."""

from __future__ import annotations

import asyncio
import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from llm_engine.runner import library
from llm_engine.runner.batch import Batch, logits_matrix
from llm_engine.runner.library import lib
from llm_engine.runner.media import Projector, slice_numbers
from llm_engine.runner.messages import Done, LoadSpec, Media
from llm_engine.runner.model import Context, Model
from llm_engine.scheduler.process import LoadFailed

from tests.engine.runner.conftest import RequestFailed, Runners, ask
from tests.engine.runner.inprocess import InProcess, leaks
from tests.engine.runner.test_extras import EXACT, greedy, png
from tests.support import extra_gguf, random_gguf

Parts = Sequence[str | Media]


def wav(hertz: float, seconds: float = 0.5) -> bytes:
    """A tone: 16 kHz, one channel, 16 bits."""
    count = int(16_000 * seconds)
    wave = 12_000 * np.sin(2 * math.pi * hertz * np.arange(count) / 16_000)
    data = wave.astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + form
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


def by_llama_cpp(model_path: Path, mmproj: Path, parts: Parts, count: int) -> list[int]:
    """The greedy answer as `mtmd_helper_eval_chunks` and one decode for each token give it."""
    library.start()
    spec = LoadSpec(str(model_path), mmproj=str(mmproj), **EXACT)  # type: ignore[arg-type]
    model = Model(spec, lambda _: True)
    projector = Projector(model)
    context = Context(model, cells=512, batch=512, sequences=1)
    mtmd = projector._m
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = [projector._bitmap(part) if isinstance(part, Media) else None for part in parts]
    projector._tokenize(chunks, parts, bitmaps, True)
    after = ctypes.c_int32()
    verdict = mtmd.mtmd_helper_eval_chunks(
        projector.handle, context.handle, chunks, 0, 0, 512, True, ctypes.byref(after)
    )
    assert verdict == 0
    batch, position, answer = Batch(1), after.value, []
    while True:
        width = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model.handle)))
        logits = logits_matrix(context.handle, 1, width)[0].copy()
        logits[2] = -np.inf  # the end is ignored
        answer.append(int(logits.argmax()))
        if len(answer) == count:
            break
        batch.clear()
        batch.put(0, position, np.array([answer[-1]], dtype=np.int32), outputs=1)
        assert batch.decode(context.handle) == 0
        position += 1
    context.free()
    model.free()
    return answer


Kind = tuple[str, Callable[[Path], Path], Callable[[int], bytes]]
KINDS: dict[str, Kind] = {
    "image": ("llama", extra_gguf.projector, lambda n: png(40 * n)),
    "image with positions of several parts": (
        "qwen2vl",
        extra_gguf.merging_projector,
        lambda n: png(40 * n, 56),
    ),
    "sound": ("llama", extra_gguf.audio_projector, lambda n: wav(300.0 * n)),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_mixed_prompt_is_answered_as_llama_cpp_does(
    start: Runners, tmp_path: Path, kind: str
) -> None:
    architecture, projector, made = KINDS[kind]
    model = random_gguf.build(tmp_path / "model.gguf", architecture=architecture)
    mmproj = projector(tmp_path / "mmproj.gguf")
    runner = await start(model, mmproj=str(mmproj), num_batch=48, **EXACT)
    assert (runner.info.vision, runner.info.audio) == (kind != "sound", kind == "sound")
    one, two = Media(made(1)), Media(made(2))
    prompts: list[Parts] = [
        ["what is ", one, "this, then?"],
        ["what is ", two, "this, then?"],
        ["first ", one, "second ", two, "third ", one, "?"],
    ]
    expected = [by_llama_cpp(model, mmproj, parts, 16) for parts in prompts]
    assert len({tuple(ids) for ids in expected}) == 3
    for parts, ids in zip(prompts, expected, strict=True):
        assert (await ask(runner, greedy(parts, 16))).ids == ids
    # Again, all at once and beside text, from the cache where it can be shared.
    texts = asyncio.gather(*(ask(runner, greedy(f"text {i}", 30)) for i in range(2)))
    again = await asyncio.gather(*(ask(runner, greedy(parts, 16)) for parts in prompts))
    assert [answer.ids for answer in again] == expected
    assert [answer.usage.completion_tokens for answer in await texts] == [30, 30]
    shared = again[0].usage.cached_tokens
    # Where one token has several positions nothing is shared; else all but the last token.
    assert shared == (0 if architecture == "qwen2vl" else again[0].usage.prompt_tokens - 1)
    stats = await runner.stats()
    assert (stats.running, stats.cells_active, stats.decode_failures) == (0, 0, 0)


async def test_a_sound_for_a_model_that_only_sees_is_refused(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    runner = await start(random_model, mmproj=str(extra_gguf.projector(tmp_path / "mmproj.gguf")))
    with pytest.raises(RequestFailed, match="does not take sound"):
        await ask(runner, greedy(["hear ", Media(wav(400)), "?"]))
    ears = await start(random_model, mmproj=str(extra_gguf.audio_projector(tmp_path / "ears.gguf")))
    with pytest.raises(RequestFailed, match="does not take images"):
        await ask(ears, greedy(["see ", Media(png(9)), "?"]))


async def test_a_projector_counts_as_memory_and_says_why_it_does_not_fit(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf")
    plain, seeing = await start(random_model), await start(random_model, mmproj=str(mmproj))
    assert seeing.info.size - plain.info.size == pytest.approx(mmproj.stat().st_size, rel=0.1)
    wide = extra_gguf.projector(tmp_path / "wide.gguf", text_width=96)
    with pytest.raises(LoadFailed, match=r"wide\.gguf does not fit this model: .*96"):
        await start(random_model, mmproj=str(wide))


@pytest.mark.parametrize(
    ("chunks", "media", "numbers"),
    [
        ("a.b", "ab", [0, 0, 0]),
        ("a.a", "aa", [0, 0, 0]),
        ("aaa.aaa.b", "aab", [0, 1, 2, 0, 0, 1, 2, 0, 0]),
        ("a.a.b.a.a", "aba", [0, 0, 1, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_slices_are_numbered_within_their_medium(chunks: str, media: str, numbers: list[int]) -> None:
    """Names by one letter each, text as a dot."""
    names = [b"" if name == "." else name.encode() for name in chunks]
    found = slice_numbers(names, [name.encode() for name in media])
    assert [n for n, name in zip(found, chunks, strict=True) if name != "."] == [
        n for n, name in zip(numbers, chunks, strict=True) if name != "."
    ]


def test_a_picture_is_encoded_once_wherever_it_stands(random_model: Path, tmp_path: Path) -> None:
    library.start()
    mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf")
    model = Model(LoadSpec(str(random_model), mmproj=str(mmproj)), lambda _: True)
    projector = Projector(model)
    red, blue = Media(png(250)), Media(png(5))
    first, _ = projector.read(["a ", red, "b ", blue, "c"], add_special=True)
    assert projector.encoded == 2
    # A conversation drops its oldest picture; a picture comes twice.
    alone, _ = projector.read(["a ", blue, "c"], add_special=True)
    _, chunks = projector.read(["a ", red, "b", red, blue], add_special=True)
    assert projector.encoded == 2
    assert len(chunks) == 3 and chunks[0].embeddings is chunks[1].embeddings is not chunks[2].embeddings
    # The tokens that stand for it are the same, too.
    blue_tokens = first[first < 0][-4:]
    assert list(alone[alone < 0]) == list(blue_tokens)
    model.free()


async def test_a_large_picture_is_taken_in_by_pieces_beside_a_stream(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    """A hundred tokens, and a gap so short that a turn takes the least there is: the stream goes on between,
    and the answers are as they are without company."""
    mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf", image=140)
    plain = await start(random_model, mmproj=str(mmproj), lookup=0, **EXACT)
    paced = await start(random_model, mmproj=str(mmproj), lookup=0, gap_ms=0.001, num_ctx=4096, **EXACT)
    prompts: list[Parts] = [["see ", Media(png(40 * n, 140)), f"{n}, well?"] for n in range(1, 4)]
    alone = [(await ask(plain, greedy(parts, 16))).ids for parts in prompts]
    assert alone[0] == by_llama_cpp(random_model, mmproj, prompts[0], 16)
    stream = asyncio.create_task(ask(paced, greedy("talk", 3000)))
    async with asyncio.timeout(60):
        while not (await paced.stats()).generated_tokens:
            pass
    before = await paced.stats()
    beside = await asyncio.gather(*(ask(paced, greedy(parts, 16)) for parts in prompts))
    after = await paced.stats()
    assert [answer.ids for answer in beside] == alone
    # Two pieces for each picture, and no two of them in a turn.
    assert after.turns - before.turns >= 2 * len(prompts) + 16 and not stream.done()
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    again = await asyncio.gather(*(ask(paced, greedy(parts, 16)) for parts in prompts))
    assert [answer.ids for answer in again] == alone
    assert all(answer.usage.cached_tokens == answer.usage.prompt_tokens - 1 for answer in again)
    assert (await paced.stats()).decode_failures == 0


def test_a_request_that_leaves_within_a_picture_leaves_nothing_of_it(
    random_model: Path, tmp_path: Path
) -> None:
    mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf", image=140)
    bench = InProcess(random_model, mmproj=str(mmproj), lookup=0, gap_ms=0.001, num_ctx=1024, park_bytes=0)
    loop = bench.loop
    asked = greedy(["see ", Media(png(9, 140)), "well?"], 12)
    bench.submit(1, asked)
    bench.run()
    loop.cache.evict(10_000)
    bench.submit(2, greedy("talk", 800))
    while not loop.counters.generated_tokens > 20:
        bench.machine.turn()
    bench.submit(3, asked)
    within = 0
    while not within:
        bench.machine.turn()
        (seeing,) = (branch for branch in loop.running if branch.request_id == 3)
        within = sum(chunk.start < seeing.computed < chunk.end for chunk in seeing.media)
    bench.machine.cancel(3)
    bench.submit(4, asked)
    bench.run()
    assert bench.writer.text[4] == bench.writer.text[1] != ""
    end = bench.writer.ends[4]
    assert isinstance(end, Done) and end.usage.cached_tokens == seeing.media[0].start
    assert not leaks(bench)
    bench.machine.model.free()
