"""The made models have the weights they claim, so what is measured with them is of a usual size."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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


def test_the_script_for_a_gpu_says_so_where_there_is_none(tmp_path: Path) -> None:
    """Whatever this machine has: only these programs are to be found."""
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    script = Path(__file__).parents[2] / "gpu" / "run"
    done = subprocess.run(
        [str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: no NVIDIA card answers nvidia-smi\nfix: nvidia-smi\n"
