"""The engine's image, built once per checkout state and shared by every test process; and those of the web UI
and the proxy as they are here."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

from stackctl.config.services import ProxyService, WebuiService
from tests.support.gates import refuse

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


@pytest.fixture(scope="session")
def webui_image() -> str:
    return _default_image(WebuiService().image, "webui")


@pytest.fixture(scope="session")
def proxy_image() -> str:
    return _default_image(ProxyService().image, "proxy")


def _default_image(name: str, kind: str) -> str:
    """The ID of what the stack runs unless told otherwise. By its name `up` would build it anew where it is
    old, which can take minutes."""
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        refuse(f"there is no image {name} (IMAGE={kind} make images)", f"REQUIRE_{kind.upper()}_IMAGE")
    return found.stdout.strip()
