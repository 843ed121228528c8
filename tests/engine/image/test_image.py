"""The image as its user meets it: hardened, small tools only, and as fast as the CPU allows."""

from __future__ import annotations

import json
import subprocess

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1600)]

HARDENED = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--pids-limit=256",
]


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"docker {argv}: {done.stderr}"
    return done.stdout


def in_image(image: str, *argv: str) -> str:
    program, *args = argv
    return docker("run", "--rm", *HARDENED, f"--entrypoint={program}", image, *args)


def test_runs_as_an_ordinary_user_with_a_healthcheck(engine_image: str) -> None:
    config = json.loads(docker("image", "inspect", engine_image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert "/models" in config["Volumes"]


def test_holds_no_compiler_and_no_installer(engine_image: str) -> None:
    found = in_image(engine_image, "sh", "-c", "command -v gcc cc g++ make cmake ninja || true")
    assert found == ""
    missing = in_image(engine_image, "sh", "-c", "/opt/engine/bin/python -m pip --version 2>&1 || true")
    assert "No module named pip" in missing


def test_holds_nothing_of_the_build_secret(engine_image: str) -> None:
    history = docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", engine_image)
    assert "BEGIN CERTIFICATE" not in history
    assert in_image(engine_image, "sh", "-c", "ls -A /run/secrets 2>/dev/null || true") == ""


# What each level needs, best first; the names are those of llama.cpp's variant libraries.
LEVELS = [
    ("zen4", {"avx512f", "avx512_vnni", "avx512_bf16", "avx512vbmi"}),
    ("icelake", {"avx512f", "avx512_vnni", "avx512vbmi"}),
    ("cascadelake", {"avx512f", "avx512_vnni"}),
    ("skylakex", {"avx512f"}),
    ("haswell", {"avx2", "fma", "f16c", "bmi2"}),
    ("sse42", {"sse4_2"}),
    ("x64", set()),
]

CHOSEN = """
from llm_engine.runner.library import load_backends
load_backends()
maps = open("/proc/self/maps").read()
print({line.rsplit("/", 1)[1] for line in maps.splitlines() if "libggml-cpu-" in line})
"""


def test_the_best_cpu_variant_is_chosen(engine_image: str) -> None:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        flags = set(next(line for line in cpuinfo if line.startswith("flags")).split())
    at_least = next(name for name, need in LEVELS if need <= flags)
    chosen = in_image(engine_image, "/opt/engine/bin/python", "-c", CHOSEN)
    better = [name for name, _ in LEVELS[: [name for name, _ in LEVELS].index(at_least) + 1]]
    better += ["sapphirerapids", "cooperlake", "alderlake"]
    assert any(f"libggml-cpu-{name}.so" in chosen for name in better), (at_least, chosen)


@pytest.mark.parametrize("argv", [["--version"], ["serve", "--help"]])
def test_the_program_starts_hardened(engine_image: str, argv: list[str]) -> None:
    assert docker("run", "--rm", *HARDENED, engine_image, *argv)
