"""The made models have the weights they claim, so what is measured with them is of a usual size."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from tests.gpu.model import random_q4_k


def test_random_q4_k_blocks_are_small_weights_around_zero() -> None:
    packed = random_q4_k(np.random.default_rng(1), 8, 1024)
    weights = quants.dequantize(packed, GGMLQuantizationType.Q4_K)
    assert weights.shape == (8, 1024)
    assert float(weights.mean()) == pytest.approx(0, abs=2e-3)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
    assert float(np.abs(weights).max()) < 0.05
