"""Chooses how containers get the GPU. A pure function of evidence: nothing is run, nothing is changed.

`auto` takes what is registered: the nvidia runtime, then a CDI spec, then ROCm. When none of them is there
the answer is the CPU, and the reason is part of the answer, because a silent fall to the CPU is the commonest
complaint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackctl.config.gpu import GpuConfig
from stackctl.errors import PreflightError

ChosenMode = Literal["nvidia", "nvidia-runtime", "cdi", "rocm", "none"]


@dataclass(frozen=True)
class GpuEvidence:
    """What a probe of the host saw. Empty means: nothing there."""

    nvidia_devices: tuple[str, ...] = ()  # lines of `nvidia-smi -L`
    docker_runtimes: tuple[str, ...] = ()
    cdi_specs: tuple[str, ...] = ()  # files in /etc/cdi and /var/run/cdi that name a GPU vendor
    rocm_devices: tuple[str, ...] = ()  # /dev/kfd and /dev/dri/renderD*
    rocm_groups: tuple[int, ...] = ()  # group ids that own them
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuChoice:
    mode: ChosenMode
    reason: str
    devices: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    fell_back: bool = False  # asked for `auto`, got the CPU


CPU = GpuChoice("none", "gpu.mode is none")


def choose_gpu(config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if config.mode == "none":
        choice = CPU
    elif config.mode == "auto":
        choice = _automatic(config, evidence)
    else:
        choice = _given(config.mode, config, evidence)
    if config.require_gpu and choice.mode == "none":
        raise PreflightError(
            f"gpu.require_gpu is true, but there is no GPU to use: {choice.reason}",
            fix="stackctl doctor --only gpu",
        )
    return choice


def _automatic(config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if evidence.nvidia_devices and "nvidia" in evidence.docker_runtimes:
        return GpuChoice("nvidia", f"nvidia runtime registered; {evidence.nvidia_devices[0]}", config.devices)
    if evidence.cdi_specs:
        return GpuChoice("cdi", f"CDI spec {evidence.cdi_specs[0]}", config.devices)
    if any(device.endswith("/kfd") for device in evidence.rocm_devices):
        return GpuChoice(
            "rocm", f"{', '.join(evidence.rocm_devices)}", evidence.rocm_devices, evidence.rocm_groups
        )
    return GpuChoice("none", _why_not(evidence), fell_back=True)


def _given(mode: ChosenMode, config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if mode == "rocm":
        devices = evidence.rocm_devices or ("/dev/kfd", "/dev/dri")
        return GpuChoice(mode, "gpu.mode is rocm", devices, evidence.rocm_groups)
    return GpuChoice(mode, f"gpu.mode is {mode}", config.devices)


def _why_not(evidence: GpuEvidence) -> str:
    if evidence.nvidia_devices:
        return (
            f"{evidence.nvidia_devices[0]} is there, but Docker has no nvidia runtime "
            f"(runtimes: {', '.join(evidence.docker_runtimes) or 'none'}) and there is no CDI spec"
        )
    seen = "no answer from nvidia-smi, no CDI spec, no /dev/kfd"
    return seen + (f" ({'; '.join(evidence.notes)})" if evidence.notes else "")
