"""Looks for GPUs without changing anything. Never raises: what cannot be found out is a note in the
evidence."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from stackctl.render.gpu import GpuEvidence
from stackctl.runtime.command import run

CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
DRM = Path("/sys/class/drm")


def probe(*, containers: bool = True) -> GpuEvidence:
    """`containers`: look at the ways of the Docker Engine to the GPU, too."""
    notes: list[str] = []
    smi = run(["nvidia-smi", "-L"], timeout=20, check=False)
    devices = (
        tuple(line for line in smi.stdout.splitlines() if line.startswith("GPU "))
        if smi.returncode == 0
        else ()
    )
    if smi.returncode not in (0, 127):
        notes.append(f"nvidia-smi: exit {smi.returncode}: {(smi.stdout or smi.stderr).strip()[:120]}")
    rocm = tuple(path for path in ("/dev/kfd", *_amd_nodes()) if os.path.exists(path))
    groups = tuple(sorted({os.stat(path).st_gid for path in rocm}))
    runtimes, folders = _engine() if containers else ((), ())
    specs = _cdi_specs(folders or CDI_FOLDERS) if containers else []
    stale = tuple(spec for spec in specs if missing_file(Path(spec)))
    return GpuEvidence(devices, runtimes, tuple(specs), stale, folders, rocm, groups, tuple(notes))


def missing_file(spec: Path) -> str | None:
    """A spec names the driver's files by version: after a driver update it points at nothing."""
    try:
        text = spec.read_text(errors="replace")
    except OSError:
        return None
    named = sorted(set(re.findall(r'hostPath"?:\s*"?([^\s",}]+)', text)))
    return next((path for path in named if not os.path.exists(path)), None)


def _amd_nodes() -> list[str]:
    """A processor's own graphics has such a node, too, and is no GPU of ROCm."""
    return [
        path
        for path in sorted(glob.glob("/dev/dri/renderD*"))
        if (driver := DRM / Path(path).name / "device" / "driver").resolve().name == "amdgpu"
        or not driver.exists()
    ]


def _engine() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The engine's runtimes, and the folders where it looks for CDI specs: none where that is switched
    off."""
    found = run(["docker", "info", "--format", "{{json .}}"], timeout=15, check=False)
    try:
        about = json.loads(found.stdout) if found.returncode == 0 else {}
        return tuple(sorted(about.get("Runtimes") or {})), tuple(about.get("CDISpecDirs") or ())
    except (ValueError, TypeError, AttributeError):
        return (), ()


def _cdi_specs(folders: Sequence[str]) -> list[str]:
    found = []
    for folder in folders:
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
