"""Generation through a real child process: text, ends, stops, several answers, log-probabilities, limits."""

from __future__ import annotations

import asyncio
import json
import math
import re
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate
from llm_engine.runner.messages import Done, Failed, GenerateRequest, Grammar, SamplingParams, Tokens
from llm_engine.scheduler.process import RunnerError

from tests.engine.runner.conftest import RequestFailed, Runners, ask, ask_all
from tests.support.models import SENTENCE, ModelMaker

FIRST_BYTE = 3
GREEDY = SamplingParams(temperature=0)


async def test_says_the_text_and_stops_at_its_end(start: Runners, chat_gguf: Path) -> None:
    runner = await start(chat_gguf)
    answer = await ask(runner, GenerateRequest("Hello", sampling=SamplingParams(seed=1)))
    assert answer.text == SENTENCE
    assert answer.reason == "stop"
    assert answer.usage.prompt_tokens == len(await runner.tokenize("Hello"))
    assert answer.usage.completion_tokens > 0


async def test_ends_at_the_limit_of_tokens(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf)
    answer = await ask(runner, GenerateRequest("Hello", max_tokens=7, echo_tokens=True, sampling=GREEDY))
    assert (answer.reason, answer.usage.completion_tokens, len(answer.ids)) == ("length", 7, 7)
    one = await ask(runner, GenerateRequest("Hello", max_tokens=1, sampling=GREEDY))
    assert (one.reason, one.usage.completion_tokens) == ("length", 1)


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (["jumps"], "The quick brown fox "),
        (["x ju", "brown"], "The quick "),
        (["The"], ""),
        (["absent"], SENTENCE),
        ([""], SENTENCE),
        (["dog.!", "dog"], SENTENCE.removesuffix("dog.")),
    ],
)
async def test_a_stop_string_ends_the_text_before_it_and_leaks_no_part(
    start: Runners, chat_gguf: Path, stop: list[str], said: str
) -> None:
    runner = await start(chat_gguf)
    answer = await ask(runner, GenerateRequest("Hello", stop=stop, sampling=GREEDY))
    assert answer.text == said
    assert answer.reason == ("stop" if said == SENTENCE else "stop_string")
    assert (answer.stop_string in stop) == (said != SENTENCE)


@pytest.mark.parametrize("stop", [(3, 6), (0, 4), (9, 10), None])
async def test_of_a_stop_string_no_token_is_told(
    start: Runners, random_model: Path, stop: tuple[int, int] | None
) -> None:
    """What a client learns of tokens leaves with their text: of a stop string neither does."""
    runner = await start(random_model)
    request = GenerateRequest("abc", max_tokens=24, logprobs=1, echo_tokens=True, sampling=GREEDY)
    whole = await ask(runner, request)
    told = b"".join(one.text for one in whole.logprobs)
    assert told.decode("utf-8", "replace") == whole.text
    cut = whole.text[slice(*stop)] if stop else whole.text[5:8] + "\x00 never said"
    found = whole.text.find(cut)
    said, ids, logprobs = "", [], b""
    async with aclosing(runner.generate(replace(request, stop=[cut, "\x00"]))) as events:
        async for event in events:
            if isinstance(event, Tokens):
                said += event.text
                ids += event.ids
                logprobs += b"".join(one.text for one in event.logprobs)
                assert len(logprobs.decode("utf-8", "replace")) <= len(said), "told before it was said"
            assert not isinstance(event, Failed)
    assert said == (whole.text[:found] if found >= 0 else whole.text)
    assert logprobs.decode("utf-8", "replace") == said
    assert ids == whole.ids[: len(ids)]
    assert await runner.detokenize(ids) == said


async def test_characters_arrive_whole(start: Runners, make_gguf: ModelMaker) -> None:
    text = "naïve 日本語 🦊 done"
    runner = await start(make_gguf(text))
    async with aclosing(runner.generate(GenerateRequest("Hello", sampling=GREEDY))) as events:
        pieces = [event.text async for event in events if isinstance(event, Tokens)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


async def test_several_answers_share_the_prompt(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    request = GenerateRequest("x" * 60, n=6, max_tokens=8, sampling=SamplingParams(seed=5, temperature=1.5))
    answers = await ask_all(runner, request)
    assert [answer.reason for answer in answers] == ["length"] * 6
    assert len({answer.text for answer in answers}) > 1
    assert sum(answer.usage.cached_tokens > 0 for answer in answers) == 5
    assert [a.text for a in await ask_all(runner, request)] == [a.text for a in answers]


async def test_who_asks_for_many_answers_does_not_keep_out_who_asks_for_one(
    start: Runners, endless_gguf: Path
) -> None:
    runner = await start(endless_gguf, num_parallel=1)
    ended: list[str] = []

    async def generate(name: str, n: int, begun: asyncio.Event) -> None:
        request = GenerateRequest(name, n=n, max_tokens=200, sampling=GREEDY)
        async with aclosing(runner.generate(request)) as events:
            async for event in events:
                begun.set()
                if isinstance(event, Done):
                    ended.append(name)

    begun = asyncio.Event()
    many = asyncio.create_task(generate("many", 8, begun))
    await begun.wait()
    await asyncio.gather(many, generate("one", 1, asyncio.Event()))
    assert "one" in ended[:-3] and ended.count("many") == 8


async def test_the_same_seed_says_the_same_whatever_runs_beside_it(
    start: Runners, random_model: Path
) -> None:
    runner = await start(random_model, num_parallel=6)
    request = GenerateRequest("Once", max_tokens=24, sampling=SamplingParams(seed=7, temperature=1.0))
    alone = await ask(runner, request)
    noise = [GenerateRequest(f"{i} noise", max_tokens=40, sampling=SamplingParams(seed=i)) for i in range(5)]
    crowded, *_ = await asyncio.gather(ask(runner, request), *(ask(runner, other) for other in noise))
    assert crowded.text == alone.text
    different = await ask(
        runner, GenerateRequest("Once", max_tokens=24, sampling=SamplingParams(seed=8, temperature=1))
    )
    assert different.text != alone.text


async def test_logprobs_are_of_the_model_and_sum_to_one(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    answer = await ask(
        runner, GenerateRequest("abc", max_tokens=5, logprobs=400, echo_tokens=True, sampling=GREEDY)
    )
    assert [lp.id for lp in answer.logprobs] == answer.ids
    for lp in answer.logprobs:
        assert lp.top[0][0] == lp.id
        assert lp.logprob == pytest.approx(lp.top[0][2])
        assert sum(math.exp(value) for _, _, value in lp.top) == pytest.approx(1, abs=1e-4)
        assert [t[2] for t in lp.top] == sorted((t[2] for t in lp.top), reverse=True)
    none = await ask(runner, GenerateRequest("abc", max_tokens=2, logprobs=0, sampling=GREEDY))
    assert [lp.top for lp in none.logprobs] == [(), ()]


SAMPLERS: list[dict[str, Any]] = [
    {"temperature": 0.7, "top_k": 5},
    {"top_p": 0.5},
    {"min_p": 0.2},
    {"typical_p": 0.5},
    {"top_n_sigma": 1.0},
    {"mirostat": 1},
    {"mirostat": 2, "mirostat_tau": 3.0},
    {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    {"dry_multiplier": 0.8},
    {"repeat_penalty": 1.3, "repeat_last_n": -1},
    {"presence_penalty": 1.0},
    {"frequency_penalty": 1.0},
    {"top_k": 0, "top_p": 1.0},
    {"temperature": 0, "repeat_penalty": 1.5},
]


async def test_every_sampler_is_repeatable(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    for settings in SAMPLERS:
        sampling = SamplingParams(seed=3, ignore_eos=True, **settings)
        request = GenerateRequest("abcabc", max_tokens=12, echo_tokens=True, sampling=sampling)
        first = await ask(runner, request)
        again = await ask(runner, request)
        assert first.ids == again.ids, settings
        assert len(first.ids) == first.usage.completion_tokens == 12, settings


async def test_top_k_of_one_is_greedy(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    greedy = await ask(runner, GenerateRequest("abc", max_tokens=16, sampling=GREEDY))
    narrow = await ask(
        runner, GenerateRequest("abc", max_tokens=16, sampling=SamplingParams(top_k=1, temperature=2))
    )
    assert greedy.text == narrow.text


async def test_logit_bias_forbids_and_forces(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    free = await ask(runner, GenerateRequest("abc", max_tokens=4, echo_tokens=True, sampling=GREEDY))
    banned = SamplingParams(temperature=0, logit_bias={free.ids[0]: float("-inf")})
    other = await ask(runner, GenerateRequest("abc", max_tokens=4, echo_tokens=True, sampling=banned))
    assert free.ids[0] not in other.ids
    forced = SamplingParams(temperature=1.0, seed=1, logit_bias={100: 1000.0})
    same = await ask(runner, GenerateRequest("abc", max_tokens=4, echo_tokens=True, sampling=forced))
    assert same.ids == [100] * 4


async def test_penalties_see_prompt_and_answer(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    never_twice = SamplingParams(temperature=0, presence_penalty=1000.0, repeat_last_n=-1)
    request = GenerateRequest("abc", max_tokens=60, echo_tokens=True, sampling=never_twice)
    answer = await ask(runner, request)
    assert len(set(answer.ids)) == 60
    assert not set(answer.ids) & set(await runner.tokenize("abc"))


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "ok": {"type": "boolean"},
        "n": {"type": "integer"},
    },
    "required": ["name", "ok", "n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_json_schema_holds_even_a_random_model(
    start: Runners, random_model: Path, seed: int, temperature: float
) -> None:
    runner = await start(random_model)
    # Bytes that begin no character are kept out: a model that has learnt to write does not say them.
    ascii_only = dict.fromkeys(range(FIRST_BYTE + 128, FIRST_BYTE + 256), float("-inf"))
    sampling = SamplingParams(seed=seed, temperature=temperature, top_k=0, top_p=1.0, logit_bias=ascii_only)
    answer = await ask(
        runner, GenerateRequest(f"{seed}", grammar=Grammar(json_schema=SCHEMA), sampling=sampling)
    )
    assert answer.reason == "stop"
    validate(json.loads(answer.text), SCHEMA)


async def test_gbnf_holds_and_several_answers_have_a_grammar_each(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    grammar = Grammar(gbnf='root ::= ("yes" | "no") "!"{2,3}')
    answers = await ask_all(
        runner, GenerateRequest("?", n=3, grammar=grammar, sampling=SamplingParams(seed=2))
    )
    assert {answer.text.rstrip("!") for answer in answers} <= {"yes", "no"}
    assert {answer.reason for answer in answers} == {"stop"}


async def test_a_lazy_grammar_sleeps_until_its_trigger(start: Runners, make_gguf: ModelMaker) -> None:
    runner = await start(make_gguf("Sure: <call>abc then more"))
    grammar = Grammar(gbnf='root ::= "<call>" [0-9]{3}', trigger_patterns=["[\\s\\S]*?(<call>)[\\s\\S]*"])
    answer = await ask(runner, GenerateRequest("go", grammar=grammar, sampling=GREEDY))
    head, _, tail = answer.text.partition("<call>")
    assert head == "Sure: "
    assert len(tail) == 3 and tail.isdigit()
    assert answer.reason == "stop"


@pytest.mark.parametrize(
    ("gbnf", "pattern"),
    [
        ('root ::= "<call>" [0-9]{3}', "(<call>abc)"),
        ('root ::= "call>" [0-9]{3}', "<(c[a-z]*>a)"),
        ('root ::= "never"', "<"),
        ('root ::= "<ca" [x]', "<call>"),
    ],
)
async def test_text_that_the_grammar_forbids_behind_its_trigger_never_ends_the_runner(
    start: Runners, make_gguf: ModelMaker, gbnf: str, pattern: str
) -> None:
    runner = await start(make_gguf("Sure: <call>abc then more"))
    grammar = Grammar(gbnf=gbnf, trigger_patterns=[pattern])
    request = GenerateRequest("go", grammar=grammar, sampling=GREEDY, max_tokens=64)
    answer = await ask(runner, request)
    assert answer.text.startswith("Sure:")
    assert re.search(pattern, answer.text) is None
    assert (await ask(runner, GenerateRequest("still here", max_tokens=2))).reason == "length"


async def test_a_trigger_token_wakes_the_grammar_or_is_refused(start: Runners, make_gguf: ModelMaker) -> None:
    runner = await start(make_gguf("Sure: <call>abc then more"))
    free = await ask(runner, GenerateRequest("go", sampling=GREEDY, echo_tokens=True))
    pieces = {token: await runner.detokenize([token]) for token in free.ids}
    token, piece = next((token, piece) for token, piece in pieces.items() if "<" in piece)
    fits = Grammar(gbnf=f"root ::= {json.dumps(piece)} [0-9]{{3}}", trigger_tokens=[token])
    answer = await ask(runner, GenerateRequest("go", grammar=fits, sampling=GREEDY))
    assert answer.text.partition(piece)[2].isdigit()
    breaks = Grammar(gbnf='root ::= "never"', trigger_tokens=[token])
    answer = await ask(runner, GenerateRequest("go", grammar=breaks, sampling=GREEDY, max_tokens=64))
    assert piece not in answer.text


@pytest.mark.parametrize(
    ("request_", "kind", "says"),
    [
        (GenerateRequest("x" * 600), "context", "600|601"),
        (GenerateRequest([1, 99999]), "invalid", "99999"),
        (GenerateRequest([-1]), "invalid", "-1"),
        (GenerateRequest("x", n=0), "invalid", "n must be"),
        (GenerateRequest("x", sampling=SamplingParams(repeat_penalty=0)), "invalid", "repeat_penalty"),
        (GenerateRequest("x", sampling=SamplingParams(temperature=float("nan"))), "invalid", "temperature"),
        (GenerateRequest("x", sampling=SamplingParams(mirostat=3)), "invalid", "mirostat"),
        (GenerateRequest("x", sampling=SamplingParams(logit_bias={70000: 1.0})), "invalid", "vocabulary"),
        (GenerateRequest("x", grammar=Grammar(gbnf="root ::= (")), "invalid", "grammar"),
        (GenerateRequest("x", grammar=Grammar(gbnf="start ::= [a]")), "invalid", "grammar"),
        (
            GenerateRequest("x", grammar=Grammar(gbnf="root ::= [a]", trigger_patterns=["("])),
            "invalid",
            "trigger",
        ),
        (
            GenerateRequest("x", grammar=Grammar(gbnf="root ::= [a]", trigger_tokens=[99999])),
            "invalid",
            "99999",
        ),
        (GenerateRequest("x", grammar=Grammar(json_schema={"type": "nonsense"})), "invalid", "nonsense"),
    ],
)
async def test_a_request_that_cannot_be_served_fails_alone_and_says_why(
    start: Runners, random_model: Path, request_: GenerateRequest, kind: str, says: str
) -> None:
    runner = await start(random_model)
    with pytest.raises(RequestFailed, match=says) as failed:
        await ask(runner, request_)
    assert failed.value.kind == kind
    assert (await ask(runner, GenerateRequest("still here", max_tokens=2))).reason == "length"


async def test_an_empty_prompt_begins_with_the_model_s_own_first_token(
    start: Runners, chat_gguf: Path
) -> None:
    runner = await start(chat_gguf)
    assert (await ask(runner, GenerateRequest("", sampling=GREEDY))).text == SENTENCE


async def test_the_context_s_end_is_an_end_or_a_shift_as_asked(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf, num_ctx=64, num_parallel=2)
    ended = await ask(runner, GenerateRequest("Hello", shift=False, sampling=GREEDY))
    assert ended.reason == "length"
    assert ended.usage.prompt_tokens + ended.usage.completion_tokens == 64
    shifted = await ask(runner, GenerateRequest("Hello", shift=True, max_tokens=300, sampling=GREEDY))
    assert shifted.usage.completion_tokens == 300
    words = shifted.text.split()
    assert all(word in SENTENCE.split() for word in words[:-1])
    assert (await runner.stats()).cells_active == 0


async def test_a_deadline_ends_with_what_there_is(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf)
    answer = await ask(runner, GenerateRequest("Hello", deadline=0.3))
    assert answer.reason == "deadline"
    assert answer.text.startswith("The quick")


async def test_a_full_queue_refuses_and_positions_are_told(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf, num_parallel=1, max_queue=2)
    tasks = [asyncio.create_task(ask(runner, GenerateRequest(f"{i}", max_tokens=150))) for i in range(6)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    busy = [r for r in results if isinstance(r, RequestFailed)]
    served = [r for r in results if not isinstance(r, BaseException)]
    assert busy and {failed.kind for failed in busy} == {"busy"}
    assert len(served) >= 2
    assert any(answer.positions for answer in served)


async def test_tokens_and_text_go_both_ways(start: Runners, random_model: Path) -> None:
    runner = await start(random_model)
    ids = await runner.tokenize("héllo", add_special=False)
    assert await runner.detokenize(ids) == "héllo"
    assert await runner.tokenize("</s>", add_special=False) == [2]
    assert len(await runner.tokenize("</s>", add_special=False, parse_special=False)) == 4
    with pytest.raises(RunnerError, match="100000"):
        await runner.detokenize([100000])


async def test_leaving_early_cancels_and_frees(start: Runners, endless_gguf: Path) -> None:
    runner = await start(endless_gguf, num_ctx=4096)
    async with aclosing(runner.generate(GenerateRequest("Hello"))) as events:
        async for event in events:
            assert not isinstance(event, Failed)
            break
    stats = await runner.stats()
    assert (stats.running, stats.cancelled, stats.cells_active) == (0, 1, 0)
