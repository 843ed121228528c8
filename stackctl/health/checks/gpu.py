"""Is the GPU there inside the engine's container, healthy, with room, and do the models really sit on it?

The commonest failure of a GPU host: the container loses the device after hours (a daemon-reload drops the
cgroup rule), the engine goes on with the CPU, and everything looks well from outside.
"""

from __future__ import annotations

from functools import partial

from stackctl.health.check import Check, Look
from stackctl.health.http import HttpError
from stackctl.health.limits import limits
from stackctl.health.look.gpus import LIMIT, NO_GPU, Gpu, parse, query
from stackctl.health.look.memo import Memo
from stackctl.health.look.runtime import RuntimeUnreachable
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, ok, skipped, unknown, worst
from stackctl.runtime.command import CommandResult

_MIB = 1024 * 1024
# A busy host takes seconds to start the command and to end it: its own limit must be what is met first.
_PATIENCE = LIMIT + 8


def checks(scene: Scene) -> list[Check]:
    if scene.plan.service("engine") is None:
        return []
    ask = query(scene.plan.gpu_mode)
    seen = Memo[CommandResult](lambda: scene.exec("engine", ask, timeout=_PATIENCE))
    return [
        Check(
            id="gpu",
            title="GPU is visible to the engine",
            looks_at="nvidia-smi, or a ROCm card's files, inside the engine: presence, memory errors, heat",
            why="a container can lose its GPU while it runs, and goes on with the CPU without a word",
            do="stackctl run gpu-lost",
            run=partial(_gpu, scene, seen),
            needs=("container.engine",),
            timeout=_PATIENCE + 4,
            thresholds="warn, crit: degrees Celsius (85, 92)",
            remedy="gpu-lost",
        ),
        Check(
            id="offload",
            title="Models sit on the GPU",
            looks_at="size_vram against size of every loaded model in /api/ps",
            why="a model that spilled to the CPU is ten times slower, and nobody gets an error",
            do="stackctl models unload NAME for one you can spare, or a smaller context",
            run=partial(_offload, scene),
            needs=("engine", "gpu"),
            thresholds="warn, crit: smallest share of a model that must be on the GPU (99%, 1%)",
        ),
        Check(
            id="vram",
            title="GPU memory has room",
            looks_at="memory used and total of each GPU",
            why="the next model or a longer context needs room, or it is loaded to the CPU",
            do="stackctl models unload NAME; nvidia-smi shows who else uses the GPU",
            run=partial(_vram, scene, seen),
            needs=("gpu",),
            thresholds="warn, crit: smallest free share (3%, 1%)",
        ),
    ]


def _reading(scene: Scene, seen: Memo[CommandResult]) -> list[Gpu] | Result:
    """The GPUs, or the result that says why there are none."""
    mode = scene.plan.gpu_mode
    if mode == "none":
        return skipped("gpu.mode is none")
    try:
        done = seen()
    except (RuntimeUnreachable, HttpError) as error:
        return unknown(str(error))
    if done.returncode in (124, 137):
        return Result(Status.CRITICAL, f"nvidia-smi inside the engine does not end within {LIMIT} s")
    missing = done.returncode in (126, NO_GPU)
    if missing and mode == "auto" and not scene.plan.require_gpu:
        return skipped("no GPU is given to the engine")
    gpus = parse(done.stdout) if done.returncode == 0 else []
    if not gpus:
        said = " ".join((done.stdout + " " + done.stderr).split())[:160]
        return Result(Status.CRITICAL, f"no GPU inside the engine: {said or 'none is listed'}")
    return gpus


def _gpu(scene: Scene, seen: Memo[CommandResult], look: Look) -> Result:
    gpus = _reading(scene, seen)
    had = int(look.memory.get("gpus", 0))
    if isinstance(gpus, Result):
        if gpus.skipped and had:
            # `auto` does not ask for a GPU, but there was one: then its absence is a loss.
            return Result(
                Status.CRITICAL, f"the engine had {had} GPU(s) and now has none", memory={"gpus": had}
            )
        return gpus
    warn, crit = limits(scene.plan, "gpu")
    states, notes = [Status.OK], []
    if len(gpus) < had:
        states.append(Status.CRITICAL)
        notes.append(f"{had - len(gpus)} of {had} GPUs are gone")
    for index, gpu in enumerate(gpus):
        if gpu.ecc:
            states.append(Status.CRITICAL)
            notes.append(f"GPU {index}: {gpu.ecc:g} uncorrected memory errors")
        if gpu.celsius is not None and gpu.celsius >= warn:
            states.append(Status.CRITICAL if gpu.celsius >= crit else Status.WARNING)
            notes.append(f"GPU {index}: {gpu.celsius:g} C")
        if gpu.throttled:
            states.append(Status.WARNING)
            notes.append(f"GPU {index}: slowed down by heat or power")
    metrics = tuple(
        Metric(f"gpu{index}_celsius", gpu.celsius, "", warn, crit)
        for index, gpu in enumerate(gpus)
        if gpu.celsius is not None
    )
    text = "; ".join(notes) or f"{len(gpus)} x {gpus[0].name}"
    return Result(worst(states), text, metrics=metrics, memory={"gpus": max(had, len(gpus))})


def _vram(scene: Scene, seen: Memo[CommandResult], look: Look) -> Result:
    gpus = _reading(scene, seen)
    if isinstance(gpus, Result):
        return gpus
    warn, crit = limits(scene.plan, "vram")
    metrics = tuple(
        Metric(f"gpu{index}_used", gpu.used * _MIB, "B", high=gpu.total * _MIB)
        for index, gpu in enumerate(gpus)
    )
    tightest = min((gpu.total - gpu.used) / gpu.total for gpu in gpus if gpu.total)
    status = Status.CRITICAL if tightest < crit else Status.WARNING if tightest < warn else Status.OK
    return Result(status, f"{tightest:.0%} of the fullest GPU is free", metrics=metrics)


def _offload(scene: Scene, look: Look) -> Result:
    # The check that looks for a GPU may be switched off.
    mode, gpu = scene.plan.gpu_mode, look.needs.get("gpu")
    unseen = mode == "auto" if gpu is None else gpu.skipped
    if mode == "none" or unseen:
        return skipped("the engine has no GPU that is known of")
    try:
        loaded = scene.ps()
    except HttpError as error:
        return unknown(str(error))
    warn, crit = limits(scene.plan, "offload")
    shares = {
        str(model.get("name")): float(model.get("size_vram", 0)) / float(model["size"])
        for model in loaded
        if model.get("size")
    }
    low = {name: share for name, share in shares.items() if share < warn}
    metrics = tuple(
        Metric(f"{name}_on_gpu", round(share, 4), "", warn, crit) for name, share in shares.items()
    )
    if not low:
        return ok(f"{len(shares)} loaded, all on the GPU" if shares else "nothing is loaded", metrics=metrics)
    status = Status.CRITICAL if min(low.values()) < crit else Status.WARNING
    text = ", ".join(f"{name} {share:.0%}" for name, share in low.items())
    return Result(status, f"not wholly on the GPU: {text}", metrics=metrics)
