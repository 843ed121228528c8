"""The scratch stack of a restore drill, `NAME-drill`: claimed, and taken away whole, also after a crash.

Guarantees: only what a drill of this very stack has claimed is ever taken down or removed, and nothing is
removed before it is down.
"""

from __future__ import annotations

import json
import shutil

from stackctl import durable, paths
from stackctl.config import StackConfig
from stackctl.errors import PreflightError
from stackctl.operations.context import Stack
from stackctl.runtime.generations import GenerationStore
from stackctl.runtime.selection import runtime_of

FOLDER = "drill"
CLAIM = "drill-of.json"


class Drill:
    def __init__(self, live: Stack) -> None:
        self._live = live
        self.name = f"{live.name[:33]}-drill"
        self.scratch = live.config.state_path / FOLDER
        self.folder = self.scratch / "stack"
        self._state = paths.state_dir(self.name)

    def refuse_if_taken(self) -> None:
        if self._state.exists() and not self._ours():
            raise PreflightError(
                f"there is a stack called {self.name} on this host ({self._state}), the name that the drill "
                f"of {self._live.name} takes",
                fix=f"give that stack another name, or, if it is none any more: mv {self._state} elsewhere",
            )

    def claim(self) -> None:
        """Refuses where a stack of somebody's has the name."""
        self.refuse_if_taken()
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        durable.write(self._state / CLAIM, json.dumps({"of": str(self._live.config.state_path)}) + "\n")
        durable.sync([self._state])

    def remove(self) -> None:
        """Down first: without its state nobody would know any more that it runs."""
        if not self._ours():
            return
        config = StackConfig(name=self.name)
        for kind in sorted({generation.runtime for generation in GenerationStore(self.name).all()}):
            runtime_of(config, kind).down(volumes=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        # The claim goes last: what a removal that was cut off leaves is still known as the drill's.
        for found in self._state.iterdir():
            if found.name != CLAIM:
                shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
        shutil.rmtree(self._state)

    def _ours(self) -> bool:
        try:
            claim = json.loads((self._state / CLAIM).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(claim, dict) and claim.get("of") == str(self._live.config.state_path)
