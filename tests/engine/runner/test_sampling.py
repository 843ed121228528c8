"""What each sampler does to a known distribution, against the definition of its inventors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from llm_engine.runner.history import History
from llm_engine.runner.messages import SamplingParams
from llm_engine.runner.sampling import Sampler
from llm_engine.runner.vocab import Vocab
from numpy.typing import NDArray

FREE: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
"""No sampler but the draw itself."""
TOKENS = np.array([50, 60, 70, 80, 90, 100, 110, 120])
SHARES = np.array([0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])


def logits_of(vocab: Vocab, shares: Sequence[float] | NDArray[np.float64] = SHARES) -> NDArray[np.float32]:
    """Logits that give TOKENS these shares, and all others as good as none."""
    values = np.full(vocab.size, -40.0, dtype=np.float32)
    values[TOKENS[: len(shares)]] = np.log(np.asarray(shares, dtype=np.float64))
    return values


def drawn(
    vocab: Vocab, logits: NDArray[np.float32], count: int = 1500, history: Sequence[int] = (), **params: Any
) -> list[int]:
    wanted = SamplingParams(**{**FREE, **params})
    past = History(vocab, wanted, 4096)
    past.read(np.array(history, dtype=np.int32))
    sampler = Sampler(vocab, wanted, past, seed=1)
    try:
        return [sampler.sample(logits) for _ in range(count)]
    finally:
        sampler.close()


def kept(tokens: list[int]) -> list[int]:
    """Which of TOKENS came up, by place."""
    found = set(tokens)
    assert found <= set(TOKENS.tolist())
    return [place for place, token in enumerate(TOKENS.tolist()) if token in found]


def locally_typical(mass: float) -> list[int]:
    surprise = -np.log(SHARES)
    entropy = float((SHARES * surprise).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    count = int(np.searchsorted(np.cumsum(SHARES[order]), mass) + 1)
    return sorted(order[:count].tolist())


def within_sigmas(vocab: Vocab, n: float) -> list[int]:
    values = logits_of(vocab)
    least = values.max() - n * values.std()
    return [place for place, token in enumerate(TOKENS.tolist()) if values[token] >= least]


def test_the_draw_follows_the_shares(vocab: Vocab) -> None:
    tokens = np.array(drawn(vocab, logits_of(vocab), 6000))
    for token, share in zip(TOKENS, SHARES, strict=True):
        spread = math.sqrt(share * (1 - share) / 6000)
        assert (tokens == token).mean() == pytest.approx(share, abs=5 * spread)


def test_temperature_sharpens_and_flattens(vocab: Vocab) -> None:
    for temperature in (0.5, 2.0):
        tokens = np.array(drawn(vocab, logits_of(vocab), 6000, temperature=temperature))
        shares = SHARES ** (1 / temperature)
        shares /= shares.sum()
        # The tail that is as good as nothing at 1 is not at 2.
        among = tokens[np.isin(tokens, TOKENS)]
        assert (among == TOKENS[0]).mean() == pytest.approx(shares[0], abs=0.04)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_keeps_the_k_best(vocab: Vocab, k: int) -> None:
    assert kept(drawn(vocab, logits_of(vocab), top_k=k)) == list(range(k))


@pytest.mark.parametrize(("p", "count"), [(0.25, 1), (0.5, 2), (0.79, 4), (0.97, 7)])
def test_top_p_keeps_the_best_up_to_their_sum(vocab: Vocab, p: float, count: int) -> None:
    assert kept(drawn(vocab, logits_of(vocab), top_p=p)) == list(range(count))


@pytest.mark.parametrize(("p", "count"), [(0.9, 1), (0.5, 3), (0.25, 5)])
def test_min_p_keeps_what_is_not_too_far_below_the_best(vocab: Vocab, p: float, count: int) -> None:
    assert kept(drawn(vocab, logits_of(vocab), min_p=p)) == list(range(count))


@pytest.mark.parametrize("mass", [0.1, 0.3, 0.5, 0.75])
def test_typical_p_keeps_the_least_surprising_surprises(vocab: Vocab, mass: float) -> None:
    places = kept(drawn(vocab, logits_of(vocab), typical_p=mass))
    assert places == locally_typical(mass)
    assert mass > 0.4 or 0 not in places  # not what top-p would keep


@pytest.mark.parametrize("n", [0.05, 0.1, 0.3])
def test_top_n_sigma_keeps_what_lies_within_n_deviations_of_the_best(vocab: Vocab, n: float) -> None:
    places = kept(drawn(vocab, logits_of(vocab), top_n_sigma=n))
    assert places == within_sigmas(vocab, n)
    assert 0 < len(places) < len(TOKENS)


def test_xtc_leaves_out_the_best_but_the_last_above_its_threshold(vocab: Vocab) -> None:
    # Above 0.1 lie four; all but the least likely of them go, whenever the dice say so.
    assert kept(drawn(vocab, logits_of(vocab), xtc_probability=1.0, xtc_threshold=0.1)) == [3, 4, 5, 6, 7]
    half = np.array(drawn(vocab, logits_of(vocab), 4000, xtc_probability=0.5, xtc_threshold=0.1))
    assert (half == TOKENS[0]).mean() == pytest.approx(SHARES[0] / 2, abs=0.04)
    assert kept(drawn(vocab, logits_of(vocab), xtc_probability=1.0, xtc_threshold=0.6)) == list(range(8))


def mirostat(bits: NDArray[np.float64], version: int, tau: float, count: int) -> float:
    """The mean surprise of what the algorithm of Basu et al. draws, likeliest tokens first in `bits`."""
    rng, mu, eta, found = np.random.default_rng(0), 2 * tau, 0.1, []
    shares = 2.0**-bits
    steps = np.log((np.arange(100) + 2) / (np.arange(100) + 1))
    falls = np.log(shares[:100] / shares[1:101])
    zipf = float((steps * falls).sum() / (steps**2).sum())
    for _ in range(count):
        if version == 2:
            most = int((bits <= mu).sum())
        else:
            excess = zipf - 1
            most = int(((excess * 2**mu) / (1 - len(bits) ** -excess)) ** (1 / zipf))
        among = shares[: max(1, most)] / shares[: max(1, most)].sum()
        drawn_ = rng.choice(len(among), p=among)
        found.append(bits[drawn_])
        mu -= eta * (-math.log2(among[drawn_]) - tau)
    return float(np.mean(found[500:]))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [2.5, 4.0])
def test_mirostat_holds_the_surprise_it_is_told_to(vocab: Vocab, version: int, tau: float) -> None:
    """Nearly Zipf's law over the whole vocabulary, whose own surprise is about six bits."""
    logits = (-1.05 * np.log(np.arange(1, vocab.size + 1))).astype(np.float32)
    bits = -(logits - np.log(np.exp(logits).sum())).astype(np.float64) / math.log(2)
    tokens = drawn(vocab, logits, 4000, mirostat=version, mirostat_tau=tau, mirostat_eta=0.1)
    assert float(bits[tokens[500:]].mean()) == pytest.approx(mirostat(bits, version, tau, 4000), abs=0.15)


def shares_after(vocab: Vocab, history: Sequence[int], **params: Any) -> NDArray[np.float64]:
    tokens = np.array(drawn(vocab, logits_of(vocab), 6000, history, **params))
    return np.array([(tokens == token).mean() for token in TOKENS])


def penalised(changes: dict[int, float]) -> NDArray[np.float64]:
    """The shares when these places have lost so much of their logit."""
    values = np.log(SHARES)
    for place, loss in changes.items():
        values[place] -= loss
    shares = np.exp(values)
    result: NDArray[np.float64] = shares / shares.sum()
    return result


def test_presence_counts_once_and_frequency_each_time(vocab: Vocab) -> None:
    history = [int(TOKENS[0])] * 3 + [int(TOKENS[1])]
    once = shares_after(vocab, history, presence_penalty=0.7)
    assert once == pytest.approx(penalised({0: 0.7, 1: 0.7}), abs=0.03)
    each = shares_after(vocab, history, frequency_penalty=0.7)
    assert each == pytest.approx(penalised({0: 2.1, 1: 0.7}), abs=0.03)


def test_the_repeat_penalty_divides_and_forgets_beyond_its_window(vocab: Vocab) -> None:
    history = [int(TOKENS[0]), *[5] * 10]
    # These logits are negative, so they are multiplied.
    loss = -float(np.log(SHARES[0])) * 0.5
    seen = shares_after(vocab, history, repeat_penalty=1.5, repeat_last_n=64)
    assert seen == pytest.approx(penalised({0: loss}), abs=0.03)
    for window in (10, 0):
        assert shares_after(vocab, history, repeat_penalty=1.5, repeat_last_n=window) == pytest.approx(
            SHARES, abs=0.03
        )
    assert shares_after(vocab, history, repeat_penalty=1.5, repeat_last_n=-1) == pytest.approx(
        penalised({0: loss}), abs=0.03
    )


def test_dry_makes_going_on_with_a_repetition_dear(vocab: Vocab) -> None:
    """`multiplier * base ^ (length - allowed)` off what would lengthen a repeated run."""
    run, break_ = [31, 32, 33, 34], 200
    history = [*run, int(TOKENS[0]), break_, *run]
    said: dict[str, Any] = {"dry_multiplier": 0.4, "dry_base": 1.5, "dry_allowed_length": 2}
    loss = 0.4 * 1.5 ** (len(run) - 2)
    assert shares_after(vocab, history, **said) == pytest.approx(penalised({0: loss}), abs=0.03)
    longer = {**said, "dry_allowed_length": len(run) + 1}
    assert shares_after(vocab, history, **longer) == pytest.approx(SHARES, abs=0.03)
    short = {**said, "dry_penalty_last_n": len(run)}
    assert shares_after(vocab, history, **short) == pytest.approx(SHARES, abs=0.03)
    # A breaker inside the run: what stands behind it counts alone, and is too short.
    text = vocab.piece(run[2]).decode("latin-1")
    assert text.isprintable() or text == "\x1e"
    broken = {**said, "dry_sequence_breakers": [text]}
    assert shares_after(vocab, history, **broken) == pytest.approx(SHARES, abs=0.03)


def test_a_bias_is_added_and_an_ignored_end_never_comes(vocab: Vocab) -> None:
    biased = shares_after(vocab, [], logit_bias={int(TOKENS[0]): -1.0, int(TOKENS[7]): 2.0})
    assert biased == pytest.approx(penalised({0: 1.0, 7: -2.0}), abs=0.03)
    logits = logits_of(vocab)
    logits[vocab.eos] = 9.0
    assert set(drawn(vocab, logits, 50)) == {vocab.eos}
    assert vocab.eos not in drawn(vocab, logits, 200, ignore_eos=True)
    assert vocab.eos not in drawn(vocab, logits, 1, temperature=0.0, ignore_eos=True)


def test_greedy_is_the_best_after_penalties(vocab: Vocab) -> None:
    logits = logits_of(vocab)
    assert drawn(vocab, logits, 1, temperature=0.0) == [50]
    assert drawn(vocab, logits, 1, [50], temperature=0.0, presence_penalty=1.0) == [60]


def test_the_same_seed_draws_the_same(vocab: Vocab) -> None:
    for params in ({}, {"mirostat": 1}, {"mirostat": 2}, {"xtc_probability": 0.5}, {"top_k": 4}):
        logits = logits_of(vocab)
        assert drawn(vocab, logits, 100, **params) == drawn(vocab, logits, 100, **params)
