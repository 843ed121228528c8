"""What stands beside plain generation: adapters, speculation, pictures, embeddings, reranking."""

from __future__ import annotations

import asyncio
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import PoolingType
from llm_engine.models.scripted import build as build_scripted
from llm_engine.runner.messages import (
    Adapter,
    EmbedRequest,
    GenerateRequest,
    Media,
    RerankRequest,
    SamplingParams,
)
from llm_engine.runner.protocol import vectors
from llm_engine.runner.speculate import lookup
from llm_engine.scheduler.process import LoadFailed, RunnerError

from tests.engine.runner.conftest import RequestFailed, Runners, ask, ask_all
from tests.support import extra_gguf, random_gguf, rank_gguf

EXACT = {"kv_type": "f32", "flash_attn": "off"}


def greedy(prompt: object, count: int = 24) -> GenerateRequest:
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    return GenerateRequest(prompt, max_tokens=count, echo_tokens=True, sampling=sampling)  # type: ignore[arg-type]


async def test_adapters_change_the_answer_by_their_scale(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    one, two = (
        extra_gguf.lora(tmp_path / "1.gguf", seed=1),
        extra_gguf.lora(tmp_path / "2.gguf", seed=2, layer=1),
    )

    async def said(*adapters: Adapter) -> list[int]:
        runner = await start(random_model, adapters=adapters, **EXACT)
        return (await ask(runner, greedy("abc"))).ids

    plain = await said()
    first, both = await said(Adapter(str(one))), await said(Adapter(str(one)), Adapter(str(two), 0.5))
    assert len({tuple(plain), tuple(first), tuple(both)}) == 3
    assert await said(Adapter(str(one), 0.0)) == plain


async def test_an_adapter_for_another_model_is_refused(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    wrong = extra_gguf.lora(tmp_path / "wrong.gguf", width=32)
    with pytest.raises(LoadFailed, match="does not fit this model"):
        await start(random_model, adapters=(Adapter(str(wrong)),))


@pytest.mark.parametrize(
    ("tokens", "length", "guess"),
    [
        ([1, 2, 3, 4, 9, 1, 2, 3], 2, [4, 9]),
        ([1, 2, 3, 4, 9, 1, 2, 3], 9, [4, 9, 1, 2, 3, 4, 9, 1, 2]),
        ([7, 7, 7, 7], 3, [7, 7, 7]),
        ([1, 2, 3], 3, []),
        ([1, 2, 3, 4, 5, 6], 3, []),
        ([1, 2, 3, -5, 9, 1, 2, 3], 2, []),
        ([1, 2, 3, 4, 1, 2, 3], 0, []),
    ],
)
def test_lookup_guesses_what_followed_last_time(tokens: list[int], length: int, guess: list[int]) -> None:
    import numpy as np

    assert lookup(np.array(tokens, dtype=np.int32), length) == guess


async def test_lookup_changes_the_speed_and_not_the_text(start: Runners, random_model: Path) -> None:
    fast = await start(random_model, lookup=8, **EXACT)
    slow = await start(random_model, lookup=0, **EXACT)
    prompt = "one two three one two three one two"
    for sampling in (SamplingParams(temperature=0, ignore_eos=True), SamplingParams(seed=4, temperature=0.3)):
        request = GenerateRequest(prompt, max_tokens=120, echo_tokens=True, sampling=sampling)
        a, b = await ask(fast, request), await ask(slow, request)
        assert a.ids == b.ids


async def test_lookup_saves_turns_where_the_text_repeats(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf)
    answer = await ask(runner, GenerateRequest("x", max_tokens=200, sampling=SamplingParams(temperature=0)))
    stats = await runner.stats()
    assert answer.usage.accepted_tokens > 100
    assert stats.turns < 120


async def test_a_draft_model_changes_the_speed_and_not_the_text(
    start: Runners, random_model: Path, tmp_path: Path
) -> None:
    other = random_gguf.build(tmp_path / "other.gguf", seed=5)
    plain = await start(random_model, lookup=0, **EXACT)
    twin = await start(random_model, lookup=0, draft=str(random_model), **EXACT)
    stranger = await start(random_model, lookup=0, draft=str(other), **EXACT)
    prompts = [f"prompt {i}" for i in range(4)]
    for prompt in prompts:
        expected = (await ask(plain, greedy(prompt, 60))).ids
        assert (await ask(stranger, greedy(prompt, 60))).ids == expected
    together = await asyncio.gather(*(ask(twin, greedy(prompt, 60)) for prompt in prompts))
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer.ids == (await ask(plain, greedy(prompt, 60))).ids


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
async def test_speculation_leaves_the_distribution_as_it_is(
    start: Runners, tmp_path: Path, temperature: float
) -> None:
    """64 answers of as many seeds: each is what its seed says without speculation, so all probabilities are
    the same. Large weights make the draft sure enough to guess; it is right and wrong often enough to show.
    """
    model = random_gguf.build(tmp_path / "sure.gguf", scale=0.6)
    wide = {"num_parallel": 16, **EXACT}
    plain = await start(model, lookup=0, **wide)
    drafted = await start(model, lookup=0, draft=str(model), **wide)
    looked_up = await start(model, lookup=8, **wide)
    sampling = SamplingParams(temperature=temperature, seed=3, top_k=0, top_p=1.0, ignore_eos=True)
    # Of three letters alone, so that the text repeats itself and can be looked up.
    few = {token: float("-inf") for token in range(259) if token not in (100, 101, 102)}
    for runner, params in ((drafted, sampling), (looked_up, replace(sampling, logit_bias=few))):
        request = GenerateRequest("abc", n=64, max_tokens=12, echo_tokens=True, sampling=params)
        expected = [answer.ids for answer in await ask_all(plain, request)]
        assert len({tuple(ids) for ids in expected}) > (5 if temperature else 0)
        answers = await ask_all(runner, request)
        assert [answer.ids for answer in answers] == expected
        guessed, held = (
            sum(getattr(answer.usage, name) for answer in answers)
            for name in ("drafted_tokens", "accepted_tokens")
        )
        assert guessed > 0 and (held < guessed or not temperature)
        stats = await runner.stats()
        assert (stats.drafted_tokens, stats.accepted_tokens) == (guessed, held)
        # The same model guesses itself rightly more often the surer its choice is.
        assert runner is not drafted or held / guessed > (0.95 if not temperature else 0.25)


async def test_a_draft_with_another_vocabulary_is_refused(
    start: Runners, random_model: Path, chat_gguf: Path
) -> None:
    with pytest.raises(LoadFailed, match="another vocabulary"):
        await start(random_model, draft=str(chat_gguf))


def png(red: int, size: int = 28) -> bytes:
    """A picture of one colour, without an image library."""
    rows = b"".join(b"\0" + bytes((red, 80, 160)) * size for _ in range(size))

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


async def test_pictures_are_seen_and_kept(start: Runners, random_model: Path, tmp_path: Path) -> None:
    mmproj = extra_gguf.projector(tmp_path / "mmproj.gguf")
    runner = await start(random_model, mmproj=str(mmproj), **EXACT)
    assert (runner.info.vision, runner.info.audio) == (True, False)
    red, blue = Media(png(250)), Media(png(5))
    text = await ask(runner, greedy("what is this?", 12))
    first = await ask(runner, greedy(["what is ", red, "this?"], 12))
    second = await ask(runner, greedy(["what is ", blue, "this?"], 12))
    again = await ask(runner, greedy(["what is ", red, "this?"], 12))
    assert first.usage.prompt_tokens > text.usage.prompt_tokens
    assert len({tuple(a.ids) for a in (text, first, second)}) == 3
    assert again.ids == first.ids
    assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
    # Another picture shares only what stands before it: not its four tokens, and nothing behind them.
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 4 - len("this?")
    two = await ask(runner, greedy(["a ", red, "b ", blue, "c"], 6))
    assert two.usage.completion_tokens == 6
    mixed = await asyncio.gather(
        ask(runner, greedy(["see ", blue, "and"], 20)),
        *(ask(runner, greedy(f"text {i}", 20)) for i in range(3)),
    )
    assert [answer.usage.completion_tokens for answer in mixed] == [20] * 4
    assert (await runner.stats()).cells_active == 0


@pytest.mark.parametrize("data", [b"", b"no picture", png(3)[:40]])
async def test_a_file_that_is_no_picture_fails_its_request_alone(
    start: Runners, random_model: Path, tmp_path: Path, data: bytes
) -> None:
    runner = await start(random_model, mmproj=str(extra_gguf.projector(tmp_path / "mmproj.gguf")))
    with pytest.raises(RequestFailed) as failed:
        await ask(runner, greedy(["see ", Media(data), "?"]))
    assert failed.value.kind == "invalid"
    assert (await ask(runner, greedy("still here", 2))).reason == "length"


async def test_a_model_without_eyes_says_so(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    with pytest.raises(RequestFailed, match="text only"):
        await ask(runner, greedy(["see ", Media(png(1)), "?"]))


async def test_embeddings_do_not_depend_on_company_and_have_length_one(
    start: Runners, tmp_path: Path
) -> None:
    path = build_scripted(tmp_path / "embed.gguf", {None: "x"}, embedding=True)
    runner = await start(path)
    assert runner.info.generates is False
    texts = [f"text number {i} " * (1 + i % 7) for i in range(90)]
    together = vectors(await runner.embed(EmbedRequest(texts)))
    for i in (0, 13, 89):
        (alone,) = vectors(await runner.embed(EmbedRequest([texts[i]])))
        assert alone == pytest.approx(together[i], abs=1e-5)
    assert all(math.dist(v, [0.0] * len(v)) == pytest.approx(1, abs=1e-5) for v in together)
    (raw,) = vectors(await runner.embed(EmbedRequest(["abc"], normalize=False)))
    (cut,) = vectors(await runner.embed(EmbedRequest(["abc"], dimensions=8)))
    norm = math.dist(raw[:8], [0.0] * 8)
    assert cut == pytest.approx([x / norm for x in raw[:8]], abs=1e-5)
    assert (await runner.embed(EmbedRequest([]))).vectors == []
    with pytest.raises(RequestFailed) as failed:
        await ask(runner, GenerateRequest("x"))
    assert failed.value.kind == "unsupported"


async def test_inputs_that_are_too_long_are_cut_or_refused_as_asked(start: Runners, tmp_path: Path) -> None:
    path = build_scripted(tmp_path / "embed.gguf", {None: "x"}, embedding=True)
    runner = await start(path, num_ctx=64)
    result = await runner.embed(EmbedRequest(["w" * 500, "short"]))
    assert result.tokens[0] == 64
    with pytest.raises(RunnerError) as failed:
        await runner.embed(EmbedRequest(["w" * 500], truncate=False))
    assert failed.value.kind == "context"
    for bad in (
        EmbedRequest(["x"], pooling="odd"),
        EmbedRequest(["x"], pooling="none"),
        EmbedRequest(["x"], pooling="rank"),
        EmbedRequest(["x"], dimensions=0),
        EmbedRequest([[99999]]),
    ):
        with pytest.raises(RunnerError) as failed:
            await runner.embed(bad)
        assert failed.value.kind == "invalid"


async def test_a_chat_model_embeds_too_while_it_talks(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    answer, result = await asyncio.gather(
        ask(runner, greedy("talk", 60)), runner.embed(EmbedRequest(["a", "b", "a"]))
    )
    a, b, same = vectors(result)
    assert a == pytest.approx(same, abs=1e-5)
    assert a != pytest.approx(b, abs=1e-3)
    assert answer.usage.completion_tokens == 60


async def test_only_a_reranker_reranks(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    with pytest.raises(RunnerError, match="not a reranker"):
        await runner.rerank(RerankRequest("q", ["d"]))


async def test_inputs_side_by_side_do_not_see_each_other(start: Runners, tmp_path: Path) -> None:
    """With real attention, which a scripted model does not have."""
    path = random_gguf.build(tmp_path / "mean.gguf", pooling=PoolingType.MEAN)
    runner = await start(path, **EXACT)
    texts = [f"document {i} " * (1 + i % 9) for i in range(40)]
    together = vectors(await runner.embed(EmbedRequest(texts)))
    for i in range(0, 40, 9):
        (alone,) = vectors(await runner.embed(EmbedRequest([texts[i]])))
        assert alone == pytest.approx(together[i], abs=1e-4)


async def test_a_reranker_gives_one_score_for_each_document(start: Runners, tmp_path: Path) -> None:
    path = random_gguf.build(tmp_path / "rank.gguf", pooling=PoolingType.RANK)
    runner = await start(path, **EXACT)
    assert (runner.info.pooling, runner.info.generates) == ("rank", False)
    documents = [f"document {i} " * (i + 1) for i in range(5)]
    result = await runner.rerank(RerankRequest("a question", documents))
    assert len(result.scores) == len(result.tokens) == 5
    assert list(result.tokens) == sorted(result.tokens)
    assert all(math.isfinite(score) for score in result.scores)
    assert (await runner.rerank(RerankRequest("a question", []))).scores == []


async def test_a_reranker_s_scores_are_those_of_a_computation_by_hand(start: Runners, tmp_path: Path) -> None:
    encoder = rank_gguf.CrossEncoder()
    runner = await start(encoder.write(tmp_path / "rank.gguf"), num_ctx=256, **EXACT)
    assert (runner.info.pooling, runner.info.generates) == ("rank", False)
    question = "which-one?"
    documents = [f"{i}" * (1 + 5 * i % 23) + "-document" for i in range(12)]
    result = await runner.rerank(RerankRequest(question, documents))
    expected = [encoder.score(question, document) for document in documents]
    # llama.cpp looks GELU up in a table of half precision.
    assert list(result.scores) == pytest.approx(expected, abs=0.02)
    assert max(expected) - min(expected) > 0.5
    assert list(result.tokens) == [len(question) + len(document) + 4 for document in documents]
    order = sorted(range(12), key=lambda i: -result.scores[i])
    assert order == sorted(range(12), key=lambda i: -expected[i])
