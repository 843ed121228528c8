"""Looks for GPUs without changing anything. Never raises: what cannot be found out is a note in the
evidence."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path

from stackctl.render.gpu import GpuEvidence
from stackctl.runtime.command import run

CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")


def probe() -> GpuEvidence:
    notes: list[str] = []
    smi = run(["nvidia-smi", "-L"], timeout=20, check=False)
    devices = (
        tuple(line for line in smi.stdout.splitlines() if line.startswith("GPU "))
        if smi.returncode == 0
        else ()
    )
    if smi.returncode not in (0, 127):
        notes.append(f"nvidia-smi: exit {smi.returncode}: {(smi.stdout or smi.stderr).strip()[:120]}")
    rocm = tuple(
        path for path in ("/dev/kfd", *sorted(glob.glob("/dev/dri/renderD*"))) if os.path.exists(path)
    )
    groups = tuple(sorted({os.stat(path).st_gid for path in rocm}))
    return GpuEvidence(devices, _docker_runtimes(), tuple(_cdi_specs()), rocm, groups, tuple(notes))


def _docker_runtimes() -> tuple[str, ...]:
    found = run(["docker", "info", "--format", "{{json .Runtimes}}"], timeout=15, check=False)
    try:
        return tuple(sorted(json.loads(found.stdout))) if found.returncode == 0 else ()
    except (ValueError, TypeError):
        return ()


def _cdi_specs() -> list[str]:
    found = []
    for folder in CDI_FOLDERS:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix not in (".yaml", ".yml", ".json"):
                continue
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            if "nvidia.com/gpu" in text:
                found.append(str(path))
    return found
