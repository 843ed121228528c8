"""Gathers what rendering needs to know of this host."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from stackctl.config import StackConfig
from stackctl.render.facts import Facts
from stackctl.render.gpu import GpuEvidence, choose_gpu, choose_local

PROGRAMS = ("llm-engine", "open-webui", "caddy", "prometheus")


def gather(config: StackConfig, runtime: str, locked: Mapping[str, str] | None = None) -> Facts:
    """`locked` holds what stack.lock says an image reference means; others mean what they mean now."""
    from stackctl.runtime import gpu_probe

    if runtime == "local":
        programs = {name: path for name in PROGRAMS if (path := find_program(name))}
        off = config.gpu.mode == "none"
        seen = GpuEvidence() if off else gpu_probe.probe(containers=False)
        gpu = choose_local(config.gpu, seen)
        return Facts("local", gpu=gpu, memory=host_memory(), programs=programs)
    from stackctl.runtime.docker import images
    from stackctl.runtime.docker.identity import container_user, identity

    seen = GpuEvidence() if config.gpu.mode == "none" else gpu_probe.probe()
    gpu = choose_gpu(config.gpu, seen)
    references = {service.image for service in config.services.enabled().values()}
    locked = {reference: pin for reference, pin in (locked or {}).items() if reference in references}
    pins = {**images.pins(reference for reference in references if not locked.get(reference)), **locked}
    return Facts("docker", user=container_user(identity()), gpu=gpu, memory=host_memory(), pins=pins)


def host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def find_program(name: str) -> str | None:
    """Beside our own interpreter first: the virtual environment need not be on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
