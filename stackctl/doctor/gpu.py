"""Checks of the way to the GPU: driver, runtime, CDI spec, and the image that was chosen for it."""

from __future__ import annotations

import re
from pathlib import Path

from stackctl.doctor.finding import Finding, error, ok, skipped, warning
from stackctl.doctor.host import Host, version_numbers
from stackctl.errors import PreflightError
from stackctl.render.gpu import CDI_OFF, choose_gpu, choose_local, lacking
from stackctl.runtime.gpu_probe import missing_file


def gpu(host: Host) -> Finding:
    """What `gpu.mode` comes to on this host, and why."""
    if host.config is None:
        seen = host.gpu.nvidia_devices or host.gpu.rocm_devices
        return ok("gpu", ", ".join(seen)) if seen else Finding("gpu", "info", "no GPU seen")
    try:
        choose = choose_gpu if host.uses_docker else choose_local
        choice = choose(host.config.gpu, host.gpu)
    except PreflightError as refusal:
        fix = "install the driver, or set gpu.require_gpu: false"
        return error("gpu", refusal.what, fix if host.config.gpu.require_gpu else str(refusal.fix))
    if choice.fell_back:
        return warning(
            "gpu", f"the engine will run on the CPU: {choice.reason}", "set gpu.mode: none to say so"
        )
    return ok("gpu", f"{choice.mode}: {choice.reason}")


def runtime_registered(host: Host) -> Finding:
    if not host.gpu.nvidia_devices or (host.config and host.config.gpu.mode == "none"):
        return skipped("nvidia-runtime", "no NVIDIA GPU seen, or none wanted")
    if "nvidia" in host.gpu.docker_runtimes or (host.gpu.cdi_specs and host.gpu.cdi_folders):
        return ok(
            "nvidia-runtime",
            f"runtimes: {', '.join(host.gpu.docker_runtimes)}; CDI specs: {len(host.gpu.cdi_specs)}",
        )
    return error(
        "nvidia-runtime",
        f"no nvidia runtime (there are: {', '.join(host.gpu.docker_runtimes)}) and "
        + (CDI_OFF if host.gpu.cdi_specs else "no CDI spec"),
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
    )


def cdi_spec(host: Host) -> Finding:
    """A spec that the stack does not use refuses nothing, however stale it is."""
    evidence, used = host.gpu, host.gpu_mode == "cdi"
    if used and (missing := lacking("cdi", evidence)):
        fix = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        if evidence.cdi_specs:
            fix = '"features": {"cdi": true} in /etc/docker/daemon.json, and restart docker (25 or newer)'
        return error("cdi-spec", missing, fix)
    if not evidence.cdi_specs:
        return skipped("cdi-spec", "no CDI spec")
    for name in evidence.cdi_specs:
        if missing := missing_file(Path(name)):
            stale = f"{name} is stale: {missing} does not exist"
            if not used:
                return Finding("cdi-spec", "info", f"{stale}; this stack does not use it")
            return error("cdi-spec", stale, f"sudo nvidia-ctk cdi generate --output={name}")
    return ok("cdi-spec", f"{', '.join(evidence.cdi_specs)}: every file is there")


def _cuda_image(image: str) -> str:
    """The build of our own engine for CUDA; for another's image only a person knows the name."""
    return f"{image}-cuda" if image.startswith("llm-engine:") else "that image's CUDA build"


def driver_and_image(host: Host) -> Finding:
    """A CUDA image asks for a driver that is new enough; the label says which."""
    cards = host.gpu.nvidia_devices
    if not cards or host.config is None or host.config.gpu.mode == "none" or host.docker_info is None:
        return skipped("driver-cuda", "no NVIDIA GPU, none wanted, no stack file, or no Docker Engine")
    image = host.config.services.engine.image
    asked = host.command(
        ["docker", "image", "inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", image]
    )
    if asked.returncode != 0 and "cuda" in image:
        return skipped("driver-cuda", f"{image} is not here yet")
    wants = asked.stdout
    match = re.search(r"^(?:NVIDIA_REQUIRE_CUDA=cuda>=|CUDA_VERSION=)([\d.]+)", wants, re.MULTILINE)
    if match is None and "NVIDIA_DRIVER_CAPABILITIES=" in wants:
        return ok("driver-cuda", f"{image} is made for NVIDIA GPUs, and does not say for which CUDA")
    if match is None:
        return warning(
            "driver-cuda",
            f"{image} is not a CUDA image: the engine would compute on the CPU beside {cards[0]}",
            f"set services.engine.image: {_cuda_image(image)}; stackctl up builds it",
        )
    header = host.command(["nvidia-smi"]).stdout
    has = re.search(r"CUDA Version:\s*([\d.]+)", header)
    if has and version_numbers(has[1]) < version_numbers(match[1]):
        # Within a major version most cards get by: the container's start is the judge then.
        severity = error if version_numbers(has[1])[0] < version_numbers(match[1])[0] else warning
        return severity(
            "driver-cuda",
            f"the driver supports CUDA {has[1]}, {image} is for {match[1]}",
            "update the driver",
        )
    return ok("driver-cuda", f"image for CUDA {match[1]}, driver for {has[1] if has else 'unknown'}")
