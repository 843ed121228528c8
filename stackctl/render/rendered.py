"""The result of rendering: files to write as a generation, and what they say, parsed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stackctl.render.facts import RuntimeName
from stackctl.runtime.generations import Generation, GenerationStore


@dataclass(frozen=True)
class Rendered:
    stack: str
    runtime: RuntimeName
    document: Mapping[str, Any]  # the main file, parsed and policy-checked
    files: Mapping[str, str]  # file name -> text, the main file among them
    images: Mapping[str, str]  # service -> image reference as written in the stack file
    pins: Mapping[str, str]  # image reference -> what it is pinned to
    secrets: tuple[str, ...] = ()  # names that must exist before this can run
    folders: tuple[str, ...] = ()  # host folders that stackctl makes, in data_dir
    notes: tuple[str, ...] = field(default=())  # said loudly by `up`: CPU fallback, exposure

    @property
    def main(self) -> str:
        return self.files["compose.yaml" if self.runtime == "docker" else "processes.yaml"]

    @property
    def digest(self) -> str:
        return hashlib.sha256(
            "\0".join(f"{k}\0{v}" for k, v in sorted(self.files.items())).encode()
        ).hexdigest()

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self.document["services"])

    def same_as(self, generation: Generation | None) -> bool:
        """Also by the names of its images: stack.lock goes by them, and two may stand for the same one."""
        if generation is None:
            return False
        about = generation.meta
        return about.get("digest") == self.digest and about.get("images") == dict(self.images)

    def write(self, store: GenerationStore, **meta: Any) -> Generation:
        """As a numbered generation; one that says the same is taken again, unless it is older than the one
        in force: numbers go up as time goes on, and what a rollback finds goes by them."""
        last = store.current() or store.taken_down()
        for one in reversed(store.all()):
            if last is not None and one.number < last.number:
                break
            if self.same_as(one):
                return one
        about = {"digest": self.digest, "images": dict(self.images), "services": list(self.services), **meta}
        return store.write(self.files, runtime=self.runtime, lock=self.pins, meta=about)
