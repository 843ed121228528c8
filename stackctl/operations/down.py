"""`down`: stop and remove what runs; data and generations stay, so that `up` brings the same stack back. And
`restart`."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from stackctl.errors import PreflightError, StackctlError
from stackctl.operations import gate, moving
from stackctl.operations.context import Stack
from stackctl.runtime import audit
from stackctl.runtime.lock import stack_lock


def data_folders(stack: Stack) -> list[Path]:
    """What `--volumes` would remove: the folders that stackctl made in the data folder, if they are there."""
    names = ("models", "webui", "comfyui", "proxy", "prometheus", "grafana")
    return [folder for name in names if (folder := stack.config.data_path / name).is_dir()]


def refuse_links(stack: Stack) -> None:
    """What a link leads to lies elsewhere and may be somebody else's: nothing is removed through it."""
    for path in (stack.config.data_path, *data_folders(stack)):
        if path.is_symlink():
            target = path.resolve()
            raise PreflightError(
                f"down --volumes: {path} is a link to {target}, and what is there is not removed through it",
                fix=f"stackctl down, then remove by hand what may go: rm -r {shlex.quote(str(target))}",
            )


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StackctlError(
            f"the stack is down, but {error.filename or folder} could not be removed: {error.strerror}",
            fix=f"sudo rm -r {shlex.quote(str(folder))}",
        ) from error


def down(stack: Stack, *, volumes: bool = False) -> None:
    with stack_lock(stack.name):
        before = stack.store.current()
        action = "down --volumes" if volumes else "down"
        with audit.recording(stack.name, action, generation_from=before.number if before else None):
            if volumes:
                refuse_links(stack)
            stack = moving.where_it_runs(stack)
            moving.leave(stack)
            stack.runtime.down(volumes)
            stack.store.forget()
            if volumes:
                from stackctl.upgrade import versions

                versions.release(stack)
                for folder in data_folders(stack):
                    stack.say(f"removing {folder}")
                    _remove(folder)


def restart(stack: Stack, services: list[str]) -> None:
    """And wait until they are healthy again."""
    with stack_lock(stack.name), audit.recording(stack.name, "restart", services=services):
        stack.runtime.restart(services)
        gate.wait_healthy(stack, services)
