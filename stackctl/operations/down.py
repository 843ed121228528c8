"""`down`: stop and remove what runs. Data and generations stay, so that `up` brings the same stack back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from stackctl.operations.context import Stack
from stackctl.runtime import audit
from stackctl.runtime.lock import stack_lock


def data_folders(stack: Stack) -> list[Path]:
    """What `--volumes` would remove: the folders that stackctl made in the data folder, if they are there."""
    names = ("models", "webui", "comfyui", "proxy", "prometheus", "grafana")
    return [folder for name in names if (folder := stack.config.data_path / name).is_dir()]


def down(stack: Stack, *, volumes: bool = False) -> None:
    with stack_lock(stack.name):
        started = time.monotonic()
        before = stack.store.current()
        outcome = "failed"
        try:
            stack.runtime.down(volumes)
            stack.store.forget()
            if volumes:
                from stackctl.upgrade import versions

                versions.release(stack)
                for folder in data_folders(stack):
                    stack.say(f"removing {folder}")
                    shutil.rmtree(folder)
            outcome = "ok"
        finally:
            audit.record(
                stack.name,
                "down --volumes" if volumes else "down",
                result=outcome,
                duration=time.monotonic() - started,
                generation_from=before.number if before else None,
            )
