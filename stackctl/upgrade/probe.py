"""The questions that are put to the old version and to the new one, and what came back: text and speed."""

from __future__ import annotations

import contextlib
import difflib
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stackctl.config.upgrade import Probe, UpgradeConfig
from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import UnhealthyError

# A busy host makes a try slow, never fast: so the best of some counts, and some more are made until the two
# best agree. Old and new are asked in the same way.
REPEATS, AT_MOST, CLOSE = 3, 8, 0.1
IN_TURN = 5
# An answer whose stream is SHORT is told by its noise: so many are asked for that they lasted ENOUGH seconds
# in all, or until PATIENCE seconds are over.
SHORT, ENOUGH, PATIENCE = 0.25, 1.0, 20.0
MOST_TOKENS = 1024


@dataclass(frozen=True)
class Measured:
    """One probe: the answer, and the best of a few tries (a busy host makes a try slow, never fast)."""

    prompt: str
    answer: str
    tokens: int
    tokens_per_second: float | None
    first_token: float
    whole: float | None = None  # tokens per second from the question to the last piece
    seconds: float = 0.0  # from the question to the last piece, of all tries together
    tries: int = 1
    brief: bool = False


@dataclass(frozen=True)
class Baseline:
    model: str
    probes: tuple[Measured, ...]

    def as_data(self) -> dict[str, Any]:
        return {"model": self.model, "probes": [asdict(probe) for probe in self.probes]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Baseline:
        return cls(data["model"], tuple(Measured(**probe) for probe in data["probes"]))


def choose_model(client: EngineClient, config: UpgradeConfig, wanted: Sequence[str] = ()) -> str | None:
    """The one of the config, a loaded one, a wanted one, else the smallest that can complete text."""
    models = {str(model["name"]): int(model.get("size", 0)) for model in client.tags()}
    if config.probe_model is not None:
        if config.probe_model not in models:
            raise UnhealthyError(f"upgrade.probe_model {config.probe_model} is not there")
        return config.probe_model
    loaded = [str(model["name"]) for model in client.ps()]
    by_size = sorted(models, key=lambda name: models[name])
    for name in [*loaded, *(name for name in wanted if name in models), *by_size]:
        if "completion" in client.show(name).get("capabilities", ["completion"]):
            return name
    return None


def measure(client: EngineClient, model: str, config: UpgradeConfig, at_most: int = AT_MOST) -> Baseline:
    """Ask every probe; the first round only loads the model."""
    with _answering(model):
        ask(client, model, config.probes[0].prompt, 1)
        probes = []
        for probe in config.probes:
            rounds: list[Measured] = []
            ends = time.monotonic() + PATIENCE
            while len(rounds) < min(REPEATS, at_most) or (
                at_most > 1 and not _enough(rounds, at_most) and time.monotonic() < ends
            ):
                rounds.append(ask(client, model, probe.prompt, config.probe_tokens))
            probes.append(summary(rounds))
    return Baseline(model, tuple(probes))


def in_turn(
    old: EngineClient, new: EngineClient, model: str, config: UpgradeConfig
) -> tuple[Baseline, Baseline]:
    """Two engines side by side, asked one after the other: whatever the host does, it does to both."""
    with _answering(model):
        for client in (old, new):
            ask(client, model, config.probes[0].prompt, 1)
        before, after = [], []
        for probe in config.probes:
            rounds: tuple[list[Measured], list[Measured]] = ([], [])
            tokens, turn, ends = config.probe_tokens, 0, time.monotonic() + 2 * PATIENCE
            while turn < IN_TURN or (time.monotonic() < ends and not _clear(*rounds)):
                for side in (0, 1) if turn % 2 == 0 else (1, 0):
                    rounds[side].append(ask((old, new)[side], model, probe.prompt, tokens))
                if turn == 0 and (longer := _longer(tokens, [*rounds[0], *rounds[1]])) > tokens:
                    tokens = longer
                    rounds = ([], [])
                turn += 1
            before.append(summary(rounds[0]))
            after.append(summary(rounds[1]))
    return Baseline(model, tuple(before)), Baseline(model, tuple(after))


@contextlib.contextmanager
def _answering(model: str) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise UnhealthyError(f"model {model} does not answer the probe: {error.what}") from error


def _longer(tokens: int, rounds: Sequence[Measured]) -> int:
    """More tokens, where the limit cut the answers off and they were over in a moment."""
    longest = max(one.seconds - one.first_token for one in rounds)
    if longest >= SHORT or longest <= 0 or any(one.tokens < tokens for one in rounds):
        return tokens
    return min(MOST_TOKENS, max(tokens, int(tokens * 2 * SHORT / longest)))


def _lasted(rounds: Sequence[Measured]) -> bool:
    """Long enough to judge by; an answer of one token has no speed, however often it is asked for."""
    return sum(one.seconds for one in rounds) >= ENOUGH or not any(one.tokens_per_second for one in rounds)


def _clear(old: Sequence[Measured], new: Sequence[Measured]) -> bool:
    """Both have lasted, or the slower one was in every try: its best is not half of the other's worst."""
    if _lasted(old) and _lasted(new):
        return True
    sides = [[one.whole for one in rounds if one.whole] for rounds in (old, new)]
    return all(len(side) >= IN_TURN for side in sides) and any(
        2 * max(slow) < min(fast) for slow, fast in (sides, sides[::-1])
    )


def _enough(rounds: Sequence[Measured], at_most: int) -> bool:
    if _brief(rounds):
        return _lasted(rounds)
    return len(rounds) >= at_most or _settled(rounds)


def _brief(rounds: Sequence[Measured]) -> bool:
    return statistics.median(one.seconds - one.first_token for one in rounds) < SHORT


def summary(rounds: Sequence[Measured]) -> Measured:
    return replace(best_of(rounds), brief=_brief(rounds))


def speeds(new: Measured, old: Measured) -> tuple[float | None, float | None]:
    """Of brief answers that of the whole, from the question on: their pieces may come in one burst."""
    if new.brief or old.brief:
        return new.whole, old.whole
    return new.tokens_per_second, old.tokens_per_second


def best_of(rounds: Sequence[Measured]) -> Measured:
    """The first answer, the highest speed, the earliest first token."""
    return replace(
        rounds[0],
        tokens_per_second=max((speed for one in rounds if (speed := one.tokens_per_second)), default=None),
        first_token=min(one.first_token for one in rounds),
        whole=max((speed for one in rounds if (speed := one.whole)), default=None),
        brief=any(one.brief for one in rounds),
        seconds=sum(one.seconds for one in rounds),
        tries=sum(one.tries for one in rounds),
    )


def better(one: Baseline, other: Baseline) -> Baseline:
    pairs = zip(one.probes, other.probes, strict=True)
    return Baseline(one.model, tuple(best_of(pair) for pair in pairs))


def _settled(rounds: Sequence[Measured]) -> bool:
    speeds = sorted((speed for one in rounds if (speed := one.tokens_per_second)), reverse=True)
    return len(speeds) < 2 or speeds[1] >= speeds[0] * (1 - CLOSE)


def ask(client: EngineClient, model: str, prompt: str, tokens: int) -> Measured:
    body = {
        "model": model,
        "prompt": prompt,
        "stream": True,
        "options": {"temperature": 0, "seed": 1, "num_predict": tokens},
    }
    began = time.monotonic()
    first = last = None
    pieces, count = [], 0
    for event in client.stream("/api/generate", body, timeout=120):
        now = time.monotonic()
        piece = str(event.get("response") or event.get("thinking") or "")
        if piece:
            first, last = first or now, now
            pieces.append(piece)
            count += 1
        if event.get("done"):
            count = int(event.get("eval_count") or count)
    if first is None or last is None:
        raise UnhealthyError(f"model {model} answered {prompt!r} with nothing")
    # Seen from outside, as a user sees it: what the engine says of its own speed proves nothing.
    speed = (count - 1) / (last - first) if count > 1 and last > first else None
    whole = count / (last - began) if count > 1 else None
    return Measured(prompt, "".join(pieces), count, speed, first - began, whole, last - began)


def judge_answers(new: Baseline, old: Baseline | None, config: UpgradeConfig) -> list[str]:
    """Why the new version's answers are not acceptable; empty when they are."""
    problems = []
    before = {probe.prompt: probe.answer for probe in old.probes} if old else {}
    for probe, measured in zip(config.probes, new.probes, strict=True):
        problem = _wrong(probe, measured.answer, before.get(probe.prompt), config.min_likeness)
        if problem:
            problems.append(f"{probe.prompt!r}: {problem}")
    return problems


def _wrong(probe: Probe, answer: str, before: str | None, min_likeness: float) -> str | None:
    if probe.expect is not None:
        found = re.search(probe.expect, answer)
        return None if found else f"{_short(answer)} does not match {probe.expect}"
    strange = sum(not (char.isprintable() or char.isspace()) or char == "\ufffd" for char in answer)
    if strange > len(answer) / 10:
        return f"{_short(answer)} is not text"
    if before is not None:
        alike = difflib.SequenceMatcher(None, before, answer, autojunk=False).ratio()
        if alike < min_likeness:
            likeness = f"likeness {alike:.2f}, at least {min_likeness:g}"
            return f"{_short(answer)} is not like the old answer {_short(before)} ({likeness})"
    return None


def how_much(new: Measured, old: Measured) -> str:
    """What a verdict on speed rests on."""
    tries = f"{new.tries} and {old.tries}" if new.tries != old.tries else f"{new.tries}"
    return f"measured over {new.seconds:.1f} and {old.seconds:.1f} s of {tries} answers"


def judge_speed(new: Baseline, old: Baseline, config: UpgradeConfig) -> list[str]:
    problems = []
    before = {probe.prompt: probe for probe in old.probes}
    for measured in new.probes:
        was = before.get(measured.prompt)
        if was is None:
            continue
        now, then = speeds(measured, was)
        if then and now is not None and now / then < config.min_speed:
            problems.append(
                f"{now:.1f} tokens/s is {now / then:.2f} of the old {then:.1f} "
                f"(at least {config.min_speed:g}; {how_much(measured, was)})"
            )
        limit = was.first_token * config.max_first_token + config.first_token_slack
        if measured.first_token > limit:
            problems.append(
                f"first token after {measured.first_token:.2f} s, before {was.first_token:.2f} s "
                f"(at most {limit:.2f} s)"
            )
    return problems


def _short(text: str) -> str:
    squeezed = " ".join(text.split())
    return repr(squeezed if len(squeezed) <= 60 else squeezed[:57] + "...")
