"""Which way to the GPU is chosen, from what evidence, and that a fall to the CPU is never silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackctl.config.gpu import GpuConfig, GpuMode
from stackctl.errors import PreflightError
from stackctl.render.gpu import GpuEvidence, choose_gpu, choose_local

CARD = "GPU 0: NVIDIA H100 (UUID: GPU-1)"
NVIDIA = GpuEvidence((CARD,), ("nvidia", "runc"))
SPEC = GpuEvidence(cdi_specs=("/etc/cdi/nvidia.yaml",), cdi_folders=("/etc/cdi",))
AMD = GpuEvidence(rocm_devices=("/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129"), rocm_groups=(44,))


@pytest.mark.parametrize(
    ("evidence", "mode", "reason"),
    [
        (NVIDIA, "nvidia", CARD),
        (replace(NVIDIA, docker_runtimes=("runc",)), "none", "no nvidia runtime"),
        (
            replace(SPEC, nvidia_devices=(CARD,), docker_runtimes=("runc",)),
            "cdi",
            "nvidia.yaml",
        ),
        (
            replace(SPEC, cdi_folders=()),
            "none",
            "nvidia.yaml is of no use: this Docker Engine has CDI switched",
        ),
        (replace(SPEC, nvidia_devices=(CARD,), cdi_folders=()), "none", "switched off"),
        (replace(SPEC, cdi_stale=SPEC.cdi_specs), "none", "the CDI spec /etc/cdi/nvidia.yaml is stale"),
        (replace(SPEC, cdi_stale=SPEC.cdi_specs, nvidia_devices=(CARD,)), "cdi", "nvidia.yaml"),
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


@pytest.mark.parametrize(
    ("mode", "enough", "missing"),
    [
        ("nvidia", NVIDIA, "nvidia-smi shows no GPU"),
        ("nvidia-runtime", NVIDIA, "nvidia-smi shows no GPU"),
        ("cdi", SPEC, "there is no CDI spec"),
        ("rocm", AMD, "there is no /dev/kfd"),
    ],
)
def test_require_gpu_wants_evidence_for_a_written_mode_too(
    mode: GpuMode, enough: GpuEvidence, missing: str
) -> None:
    config = GpuConfig(mode=mode, require_gpu=True)
    assert choose_gpu(config, enough).mode == mode
    with pytest.raises(PreflightError, match=missing):
        choose_gpu(config, GpuEvidence())


def test_require_gpu_sees_what_is_registered() -> None:
    for mode, evidence, why in (
        ("nvidia-runtime", replace(NVIDIA, docker_runtimes=("runc",)), "Docker has no nvidia runtime"),
        ("cdi", replace(SPEC, cdi_folders=()), "CDI switched off"),
    ):
        with pytest.raises(PreflightError, match=why):
            choose_gpu(GpuConfig.model_validate({"mode": mode, "require_gpu": True}), evidence)


def test_devices_of_rocm_are_told_to_it() -> None:
    choice = choose_gpu(GpuConfig(mode="rocm", devices=("1",)), AMD)
    assert (choice.visible, choice.devices) == (("1",), AMD.rocm_devices)
    assert choose_gpu(GpuConfig(mode="rocm", devices=("GPU-77ab",)), AMD).visible == ("GPU-77ab",)
    assert choose_gpu(GpuConfig(), AMD).visible == ()


@pytest.mark.parametrize(
    ("evidence", "device", "there"),
    [(NVIDIA, "1", "0, GPU-1"), (NVIDIA, "GPU-9", "0, GPU-1"), (AMD, "2", "0, 1")],
)
def test_a_device_that_is_not_there_is_refused(evidence: GpuEvidence, device: str, there: str) -> None:
    with pytest.raises(PreflightError, match=f"gpu.devices names {device}.*there are: {there}$"):
        choose_gpu(GpuConfig(devices=(device,)), evidence)


def test_devices_that_are_there_or_not_ours_to_judge() -> None:
    for device in ("0", "GPU-1", "MIG-1"):
        assert choose_gpu(GpuConfig(devices=(device,)), NVIDIA).devices == (device,)
    assert choose_gpu(GpuConfig(mode="none", devices=("7",)), NVIDIA).mode == "none"


@pytest.mark.parametrize(
    ("mode", "evidence", "chosen"),
    [
        ("auto", NVIDIA, "nvidia"),
        ("cdi", NVIDIA, "nvidia"),
        ("rocm", NVIDIA, "none"),
        ("auto", AMD, "rocm"),
        ("nvidia", AMD, "none"),
        ("auto", SPEC, "none"),
        ("none", NVIDIA, "none"),
    ],
)
def test_local_processes_take_what_is_there(mode: GpuMode, evidence: GpuEvidence, chosen: str) -> None:
    choice = choose_local(GpuConfig(mode=mode), evidence)
    assert (choice.mode, choice.fell_back) == (chosen, chosen == "none" and mode != "none")
    if chosen == "none":
        with pytest.raises(PreflightError, match="require_gpu is true"):
            choose_local(GpuConfig(mode=mode, require_gpu=True), evidence)
    else:
        assert choose_local(GpuConfig(mode=mode, devices=("0",)), evidence).visible == ("0",)
