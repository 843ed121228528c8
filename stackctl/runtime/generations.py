"""Numbered, complete renderings of a stack on disk, and which of them is in force.

`generations/0007/` holds the rendered file (`compose.yaml` or `processes.yaml`), `lock.json` (image reference
-> pinned digest or image id) and `meta.json`. A generation appears whole or not at all (written aside, then
renamed), and is never changed. `current` and `previous` are links, swapped by rename; `taken-down` is what
`current` is called after `down`, so that `up` leaves `previous` what it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackctl import durable, paths


@dataclass(frozen=True)
class Generation:
    number: int
    path: Path

    @property
    def runtime(self) -> str:
        return str(self.meta["runtime"])

    @property
    def file(self) -> Path:
        """The rendered file, as the runtime takes it."""
        return self.path / ("compose.yaml" if self.runtime == "docker" else "processes.yaml")

    @property
    def compose_path(self) -> Path:
        return self.file

    @property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "meta.json").read_text())
        return found

    @property
    def lock(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.path / "lock.json").read_text())
        return found


class GenerationStore:
    def __init__(self, stack: str) -> None:
        self.stack = stack
        self.root = paths.state_dir(stack) / "generations"

    def all(self) -> list[Generation]:
        if not self.root.is_dir():
            return []
        return sorted(
            (
                Generation(int(entry.name), entry)
                for entry in self.root.iterdir()
                if re.fullmatch(r"\d{4,}", entry.name) and _readable(entry)
            ),
            key=lambda generation: generation.number,
        )

    def get(self, number: int) -> Generation | None:
        return next((generation for generation in self.all() if generation.number == number), None)

    def current(self) -> Generation | None:
        return self._linked("current")

    def previous(self) -> Generation | None:
        """The one that was in force before; an older stackctl could link the same one twice."""
        previous = self._linked("previous")
        return None if previous == self._linked("current") else previous

    def taken_down(self) -> Generation | None:
        """The one that was in force when `down` ended it; None while one is in force."""
        return self._linked("taken-down") if self.current() is None else None

    def next_number(self) -> int:
        """Above every number that is taken, also by a folder that an older stackctl left half removed."""
        taken = self.root.iterdir() if self.root.is_dir() else ()
        return max((int(entry.name) for entry in taken if entry.name.isdigit()), default=0) + 1

    def write(
        self, files: Mapping[str, str], *, runtime: str, lock: Mapping[str, str], meta: Mapping[str, Any]
    ) -> Generation:
        """A new generation with these files. It is not in force until `activate`."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self.root.glob(".new-*"):
            shutil.rmtree(leftover, ignore_errors=True)  # a writer that was killed; the stack lock is ours
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root))
        number = self.next_number()
        about = {
            "number": number,
            "runtime": runtime,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        contents = {
            **files,
            "lock.json": json.dumps(dict(lock), indent=2, sort_keys=True) + "\n",
            "meta.json": json.dumps({**meta, **about}, indent=2, sort_keys=True) + "\n",
        }
        for name, text in contents.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        aside.chmod(0o755)  # containers read the configuration files in it; secrets are elsewhere
        final = self.root / f"{number:04d}"
        aside.rename(final)
        durable.sync([self.root])
        return Generation(number, final)

    def activate(self, generation: Generation) -> None:
        """Put `generation` in force; what was in force, before `down` if need be, becomes `previous`."""
        current = self.current()
        was = current or self.taken_down()
        if was and was.number != generation.number:
            self._link("previous", was)
        if was != current or current != generation:
            self._link("current", generation)
        (self.root / "taken-down").unlink(missing_ok=True)

    def prune(self, keep: int) -> list[Generation]:
        """Remove all but the newest `keep`, and the newest of each of the last `keep` sets of images: many
        changes of the stack file do not take the version before away. What is or was in force always stays.
        """
        there = self.all()
        spared = {one.number for one in (self.current(), self.previous(), self.taken_down()) if one}
        spared |= {one.number for one in there[-keep:]}
        images: dict[tuple[tuple[str, str], ...], int] = {}
        for one in reversed(there):
            images.setdefault(tuple(sorted(one.lock.items())), one.number)
        spared |= set(list(images.values())[:keep])
        removed = [old for old in there if old.number not in spared]
        for old in removed:
            # Out of sight in one step: a removal that is cut off never leaves half a generation.
            old.path.rename(self.root / f".old-{old.path.name}")
        for leftover in self.root.glob(".old-*") if self.root.is_dir() else ():
            shutil.rmtree(leftover, ignore_errors=True)
        return removed

    def forget(self) -> None:
        """Nothing is in force any more (after `down`); the generations stay for a later `up` or rollback."""
        if self.current():
            (self.root / "current").rename(self.root / "taken-down")
            durable.sync([self.root])

    def _linked(self, name: str) -> Generation | None:
        try:
            target = os.readlink(self.root / name)
        except OSError:
            return None
        return self.get(int(target)) if target.isdigit() else None

    def _link(self, name: str, generation: Generation) -> None:
        aside = self.root / f".{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(generation.path.name)
        aside.rename(self.root / name)
        durable.sync([self.root])


def _readable(folder: Path) -> bool:
    """One that was damaged is none: `up` makes a new one, and `down` goes on."""
    try:
        found = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        lock = json.loads((folder / "lock.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and isinstance(lock, dict) and "runtime" in found
