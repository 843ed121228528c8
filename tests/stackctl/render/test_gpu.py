"""Which way to the GPU is chosen, from what evidence, and that a fall to the CPU is never silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackctl.config.gpu import GpuConfig
from stackctl.errors import PreflightError
from stackctl.render.gpu import GpuEvidence, choose_gpu

CARD = "GPU 0: NVIDIA H100 (UUID: GPU-1)"
NVIDIA = GpuEvidence((CARD,), ("nvidia", "runc"))


@pytest.mark.parametrize(
    ("evidence", "mode", "reason"),
    [
        (NVIDIA, "nvidia", CARD),
        (replace(NVIDIA, docker_runtimes=("runc",)), "none", "no nvidia runtime"),
        (
            replace(NVIDIA, docker_runtimes=("runc",), cdi_specs=("/etc/cdi/nvidia.yaml",)),
            "cdi",
            "nvidia.yaml",
        ),
        (
            GpuEvidence(rocm_devices=("/dev/kfd", "/dev/dri/renderD128"), rocm_groups=(44,)),
            "rocm",
            "/dev/kfd",
        ),
        (GpuEvidence(rocm_devices=("/dev/dri/renderD128",)), "none", "no /dev/kfd"),
        (GpuEvidence(), "none", "no answer from nvidia-smi"),
    ],
)
def test_auto_takes_what_is_registered(evidence: GpuEvidence, mode: str, reason: str) -> None:
    choice = choose_gpu(GpuConfig(), evidence)
    assert choice.mode == mode
    assert reason in choice.reason
    assert choice.fell_back == (mode == "none")


def test_require_gpu_refuses_the_cpu_and_says_why() -> None:
    with pytest.raises(PreflightError, match="nvidia-smi") as caught:
        choose_gpu(GpuConfig(require_gpu=True), GpuEvidence())
    assert caught.value.exit_code == 3


def test_a_written_mode_is_taken_at_its_word() -> None:
    choice = choose_gpu(GpuConfig(mode="cdi", devices=("1",)), GpuEvidence())
    assert (choice.mode, choice.devices, choice.fell_back) == ("cdi", ("1",), False)
    assert choose_gpu(GpuConfig(mode="none"), NVIDIA).mode == "none"
