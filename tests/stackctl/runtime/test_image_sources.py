"""Whether an image is behind its sources: one digest, written by the build and looked for by `up`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from stackctl.runtime.docker import images, sources

DOCKERFILES = {
    "cpu": "images/engine/Dockerfile",
    "cuda": "images/engine/Dockerfile.cuda",
    "webui": "images/webui/Dockerfile",
    "proxy": "images/proxy/Dockerfile",
}


@pytest.mark.parametrize("kind", DOCKERFILES)
def test_everything_that_the_build_reads_is_in_the_digest(kind: str) -> None:
    text = (sources.ROOT / DOCKERFILES[kind]).read_text()
    read = re.findall(r"--mount=type=bind,source=([^,\s]+)", text)
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", text, re.MULTILINE):
        read += line.split()[:-1]
    assert read
    outside = [
        name for name in read if not any(Path(name).is_relative_to(known) for known in sources.INPUTS[kind])
    ]
    assert outside == []


def test_the_digest_moves_with_the_content_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("scripts/images", "images/engine/use-ca", "images/proxy/Dockerfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources.ROOT / name, tmp_path / name)
    before = sources.digest("proxy", tmp_path)
    assert before == sources.digest("proxy")
    (tmp_path / "images/proxy/__pycache__").mkdir()
    (tmp_path / "images/proxy/__pycache__/x.pyc").write_bytes(b"x")
    assert sources.digest("proxy", tmp_path) == before
    (tmp_path / "images/proxy/extra").write_text("x")
    assert sources.digest("proxy", tmp_path) != before


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("llm-engine:0.1.0", "cpu"),
        ("llm-engine:0.1.0-cuda", "cuda"),
        ("stackctl-proxy:2", "proxy"),
        ("ollama/ollama:0.13.5", None),
    ],
)
def test_which_build_makes_an_image(reference: str, kind: str | None) -> None:
    assert images.kind_of(reference) == kind


@pytest.mark.docker
@pytest.mark.timeout(1500)
def test_what_the_script_built_is_not_built_again_by_up(engine_image: str) -> None:
    found = images.inspect(engine_image)
    assert found is not None
    assert found["Config"]["Labels"][sources.LABEL] == sources.digest("cpu")
