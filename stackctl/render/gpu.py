"""Chooses how containers get the GPU. A pure function of evidence: nothing is run, nothing is changed.

`auto` takes what is registered: the nvidia runtime, then a CDI spec where the engine reads them, then ROCm.
When none of them is there the answer is the CPU, and the reason is part of the answer, because a silent fall
to the CPU is the commonest complaint. A mode that is written is taken at its word, but for `require_gpu`:
that wants evidence for it, too.
"""

from __future__ import annotations

import re
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
    cdi_specs: tuple[str, ...] = ()  # files that name a GPU vendor, in the folders for them
    cdi_stale: tuple[str, ...] = ()  # those of them that name files which are not there
    cdi_folders: tuple[str, ...] = ()  # where the engine looks for them; none: CDI is switched off in it
    rocm_devices: tuple[str, ...] = ()  # /dev/kfd and /dev/dri/renderD*
    rocm_groups: tuple[int, ...] = ()  # group ids that own them
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuChoice:
    mode: ChosenMode
    reason: str
    devices: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    visible: tuple[str, ...] = ()  # ROCm is handed all device files, and told which GPUs to use
    fell_back: bool = False  # asked for `auto`, got the CPU


CPU = GpuChoice("none", "gpu.mode is none")


def choose_gpu(config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if config.mode == "none":
        choice = CPU
    elif config.mode == "auto":
        choice = _automatic(config, evidence)
    else:
        choice = _of_mode(config.mode, f"gpu.mode is {config.mode}", config, evidence)
    missing = choice.reason if choice.mode == "none" else lacking(choice.mode, evidence)
    if config.require_gpu and missing:
        raise PreflightError(
            f"gpu.require_gpu is true, but there is no GPU to use: {missing}",
            fix="stackctl doctor --only gpu",
        )
    _check_devices(choice, config, evidence)
    return choice


def choose_local(config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    """For processes of this host: nothing has to be handed to them, so what is there decides."""
    if config.mode == "none":
        choice = CPU
    elif config.mode != "rocm" and evidence.nvidia_devices:
        choice = GpuChoice("nvidia", evidence.nvidia_devices[0], visible=config.devices)
    elif config.mode in ("auto", "rocm") and _has_kfd(evidence):
        choice = GpuChoice("rocm", ", ".join(evidence.rocm_devices), visible=config.devices)
    else:
        notes = f" ({'; '.join(evidence.notes)})" if evidence.notes else ""
        choice = GpuChoice("none", f"no answer from nvidia-smi, no /dev/kfd{notes}", fell_back=True)
    if config.require_gpu and choice.mode == "none":
        raise PreflightError(
            f"gpu.require_gpu is true, but there is no GPU to use: {choice.reason}",
            fix="stackctl doctor --only gpu",
        )
    _check_devices(choice, config, evidence)
    return choice


def lacking(mode: ChosenMode, evidence: GpuEvidence) -> str | None:
    """What this way to the GPU needs and was not seen; None when nothing is amiss."""
    notes = f" ({'; '.join(evidence.notes)})" if evidence.notes else ""
    if mode in ("nvidia", "nvidia-runtime") and not evidence.nvidia_devices:
        return f"gpu.mode is {mode}, and nvidia-smi shows no GPU{notes}"
    if mode == "nvidia-runtime" and "nvidia" not in evidence.docker_runtimes:
        return f"gpu.mode is {mode}, and Docker has no nvidia runtime{_runtimes(evidence)}"
    if mode == "cdi" and not evidence.cdi_specs:
        return "gpu.mode is cdi, and there is no CDI spec for a GPU"
    if mode == "cdi" and not evidence.cdi_folders:
        return f"there is the CDI spec {evidence.cdi_specs[0]}, but {CDI_OFF}"
    if mode == "rocm" and not _has_kfd(evidence):
        return "gpu.mode is rocm, and there is no /dev/kfd"
    return None


CDI_OFF = "this Docker Engine has CDI switched off, or is too old for it"


def _automatic(config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if evidence.nvidia_devices and "nvidia" in evidence.docker_runtimes:
        return _of_mode(
            "nvidia", f"nvidia runtime registered; {evidence.nvidia_devices[0]}", config, evidence
        )
    # A stale spec beside a card is to be made anew; without a card it is what an old driver left.
    stale = () if evidence.nvidia_devices else evidence.cdi_stale
    specs = [spec for spec in evidence.cdi_specs if spec not in stale]
    if specs and evidence.cdi_folders:
        return _of_mode("cdi", f"CDI spec {specs[0]}", config, evidence)
    if _has_kfd(evidence):
        return _of_mode("rocm", ", ".join(evidence.rocm_devices), config, evidence)
    return GpuChoice("none", _why_not(evidence, specs), fell_back=True)


def _of_mode(mode: ChosenMode, reason: str, config: GpuConfig, evidence: GpuEvidence) -> GpuChoice:
    if mode == "rocm":
        devices = evidence.rocm_devices or ("/dev/kfd", "/dev/dri")
        return GpuChoice(mode, reason, devices, evidence.rocm_groups, visible=config.devices)
    return GpuChoice(mode, reason, config.devices)


def _check_devices(choice: GpuChoice, config: GpuConfig, evidence: GpuEvidence) -> None:
    """A GPU that is named and not there is a mistake of the stack file, found before anything is started.
    Names of another kind (MIG, CDI's own) are the engine's to know."""
    if choice.mode == "rocm":
        there = [str(number) for number in range(sum("/renderD" in one for one in evidence.rocm_devices))]
    else:
        found = [re.match(r"GPU (\d+):.*?\(UUID: (\S+?)\)", line) for line in evidence.nvidia_devices]
        there = [name for match in found if match for name in match.groups()]
    if choice.mode == "none" or not there:
        return
    for name in config.devices:
        known = name in there or (len(name) > 4 and any(one.startswith(name) for one in there))
        judged = name.isdigit() or (name.startswith("GPU-") and choice.mode != "rocm")
        if judged and not known:
            raise PreflightError(
                f"gpu.devices names {name}, which is not on this host; there are: {', '.join(there)}",
                fix="correct gpu.devices in the stack file",
            )


def _has_kfd(evidence: GpuEvidence) -> bool:
    return any(device.endswith("/kfd") for device in evidence.rocm_devices)


def _runtimes(evidence: GpuEvidence) -> str:
    return f" (runtimes: {', '.join(evidence.docker_runtimes) or 'none'})"


def _why_not(evidence: GpuEvidence, specs: list[str]) -> str:
    spec = f"the CDI spec {specs[0]} is of no use: {CDI_OFF}" if specs else "there is no CDI spec"
    if evidence.nvidia_devices:
        return (
            f"{evidence.nvidia_devices[0]} is there, but Docker has no nvidia runtime"
            f"{_runtimes(evidence)} and {spec}"
        )
    if evidence.cdi_stale and not specs:
        spec = f"the CDI spec {evidence.cdi_stale[0]} is stale"
    seen = f"no answer from nvidia-smi, {spec.removeprefix('there is ')}, no /dev/kfd"
    return seen + (f" ({'; '.join(evidence.notes)})" if evidence.notes else "")
