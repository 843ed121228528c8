"""`gpu.*`: whether the engine still has its GPU, and how often it may be restarted for it."""

from __future__ import annotations

import json
import time

from stackctl.config.durations import Duration, format_duration
from stackctl.errors import UnhealthyError
from stackctl.operations.facts import gather
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, NoArgs, Outcome, action
from stackctl.redact import redacted

HISTORY = "gpu-restarts.json"


class RateArgs(Args):
    at_most: int = 3
    per: Duration = 86400.0


@action("gpu.verify", NoArgs, reads_only=True)
def gpu_verify(context: Context, _args: Args) -> Outcome:
    """Holds when the GPU is seen from inside the engine's container, and loaded models are on it."""
    stack = context.stack.handle
    if stack.config.gpu.mode == "none" or stack.choice.name != "docker":
        return Outcome(True, "this stack uses no GPU of a container")
    seen = stack.runtime.exec("engine", ["nvidia-smi", "-L"], timeout=30)
    # Asked of the container first: when the host has lost the GPU, too, the host says that there was none.
    if seen.returncode in (126, 127) and gather(stack.config, "docker").gpu.mode in ("none", "rocm"):
        return Outcome(True, "there was no GPU for this stack")
    if seen.returncode != 0 or "GPU" not in seen.stdout:
        said = redacted(seen.stdout + seen.stderr).strip()[:200] or "no GPU"
        return Outcome(False, f"inside the engine: {said}")
    spilled = [str(model["name"]) for model in stack.engine().ps() if not model.get("size_vram")]
    if spilled:
        return Outcome(False, f"on the CPU though the GPU is there: {', '.join(spilled)}")
    return Outcome(True, seen.stdout.splitlines()[0])


@action("gpu.may-restart", RateArgs, irreversible=False)
def gpu_may_restart(context: Context, args: RateArgs) -> Outcome:
    """Counts restarts; too many mean a fault that a restart does not cure, and a person is called."""
    path = context.stack.state_dir / HISTORY
    now = time.time()
    try:
        times = [at for at in json.loads(path.read_text()) if now - at < args.per]
    except (OSError, ValueError):
        times = []
    if len(times) >= args.at_most:
        raise UnhealthyError(
            f"the GPU was lost {len(times)} times within {format_duration(args.per)}: "
            "a restart does not cure it",
            fix="stackctl doctor",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps([*times, now]))
    draft.replace(path)
    return Outcome(True, f"restart {len(times) + 1} of {args.at_most} within {format_duration(args.per)}")
