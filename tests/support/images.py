"""The engine's image, built once per checkout state and shared by every test process."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def engine_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image ID of the engine built from this checkout (layers are cached, so a repeat takes a second)."""
    # One builder at a time: the parallel test processes share the base temporary folder's parent.
    lock = tmp_path_factory.getbasetemp().parent / "engine-image.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = subprocess.run(
            [ROOT / "scripts" / "images"], cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()[-1]
