"""What a ROCm card looks like from inside a container, read by the real command over a tree of files."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from stackctl.health.look.gpus import NO_GPU, Gpu, parse, query
from stackctl.health.model import Status
from stackctl.runtime.command import CommandResult, run
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import HostView, look


def card(root: Path, number: int, *, given: bool = True) -> Path:
    """An AMD card as amdgpu shows it in sysfs; `given` is whether the container has its node."""
    device = root / f"sys/class/drm/card{number}/device"
    (device / f"drm/renderD{128 + number}").mkdir(parents=True)
    (device / "hwmon/hwmon3").mkdir(parents=True)
    (device / "ras").mkdir()
    (device / "product_name").write_text("Radeon, Pro W7900\n")
    (device / "mem_info_vram_total").write_text(f"{48 << 30}\n")
    (device / "mem_info_vram_used").write_text(f"{12 << 30}\n")
    (device / "hwmon/hwmon3/temp1_input").write_text("61000\n")
    (device / "gpu_busy_percent").write_text("17\n")
    (device / "ras/umc_err_count").write_text("ue: 0\nce: 3\n")
    nodes = root / "dev/dri"
    nodes.mkdir(parents=True, exist_ok=True)
    (root / "dev/kfd").touch()
    if given:
        (nodes / f"renderD{128 + number}").touch()
    return device


def ask(root: Path, mode: str = "rocm") -> subprocess.CompletedProcess[str]:
    # No nvidia-smi, whatever this machine has.
    return subprocess.run(
        query(mode, str(root)), capture_output=True, text=True, timeout=20, env={"PATH": "/usr/bin:/bin"}
    )


@pytest.mark.parametrize("mode", ["rocm", "auto"])
def test_a_card_is_read_from_the_kernels_files(tmp_path: Path, mode: str) -> None:
    card(tmp_path, 0)
    card(tmp_path, 1, given=False)
    (tmp_path / "sys/class/drm/card2/device").mkdir(parents=True)  # the console's, without memory of its own
    done = ask(tmp_path, mode)
    assert done.returncode == 0, done.stderr
    assert parse(done.stdout) == [Gpu("Radeon  Pro W7900", 12288, 49152, 61, 0, False, 17)]


def test_what_a_card_does_not_tell_is_unknown(tmp_path: Path) -> None:
    device = card(tmp_path, 0)
    for name in ("product_name", "hwmon/hwmon3/temp1_input", "ras/umc_err_count", "gpu_busy_percent"):
        (device / name).unlink()
    assert parse(ask(tmp_path).stdout) == [Gpu("AMD GPU", 12288, 49152, None, None, False)]


@pytest.mark.parametrize("mode", ["rocm", "auto"])
def test_no_card_was_given(tmp_path: Path, mode: str) -> None:
    done = ask(tmp_path, mode)
    assert done.returncode == NO_GPU and "no /dev/kfd" in done.stderr


class OtherRoot(HostView):
    """A container whose files lie under another folder."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult:
        assert argv[-1] == ""
        return run([*argv[:-1], str(self.root)], timeout=timeout, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("mode", ["rocm", "auto"])
def test_a_card_that_is_lost_is_critical_in_either_mode(tmp_path: Path, mode: str) -> None:
    device = card(tmp_path, 0)
    stack, inside = plan(gpu={"mode": mode}), OtherRoot(tmp_path)
    well = look(stack, "gpu", view=inside)
    assert (well.status, well.summary) == (Status.OK, "1 x Radeon  Pro W7900")
    assert look(stack, "vram", view=inside).summary == "75% of the fullest GPU is free"
    (device / "hwmon/hwmon3/temp1_input").write_text("95000\n")
    assert look(stack, "gpu", view=inside).summary == "GPU 0: 95 C"
    (tmp_path / "dev/dri/renderD128").unlink()
    lost = look(stack, "gpu", view=inside, memory=well.memory)
    assert (lost.status, "no GPU inside the engine" in lost.summary) == (Status.CRITICAL, True)
    (tmp_path / "dev/kfd").unlink()
    assert look(stack, "gpu", view=inside, memory=well.memory).status is Status.CRITICAL


def test_a_host_that_never_had_one_is_left_alone(tmp_path: Path) -> None:
    inside = OtherRoot(tmp_path)
    assert look(plan(gpu={"mode": "auto"}), "gpu", view=inside).skipped
    wanted = plan(gpu={"mode": "auto", "require_gpu": True})
    assert look(wanted, "gpu", view=inside).status is Status.CRITICAL
    assert look(plan(gpu={"mode": "rocm"}), "gpu", view=inside).status is Status.CRITICAL
