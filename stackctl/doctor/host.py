"""What the checks look at, each thing asked for once and only when a check wants it. Tests hand in other
answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stackctl.config import StackConfig
from stackctl.config.gpu import GpuConfig
from stackctl.render.gpu import ChosenMode, GpuEvidence, choose_gpu
from stackctl.runtime.command import CommandResult, run
from stackctl.runtime.selection import Choice, by_what_answers, choose


def _run(argv: list[str]) -> CommandResult:
    return run(argv, timeout=60, check=False)


@dataclass
class Host:
    config: StackConfig | None = None
    command: Callable[[list[str]], CommandResult] = _run
    root: Path = field(default=Path("/"))  # where /proc, /sys and /etc are
    chosen: Choice | None = None  # by `up`, which has asked already

    @cached_property
    def docker_version(self) -> CommandResult:
        return self.command(["docker", "version", "--format", "{{.Server.Version}}"])

    @cached_property
    def docker_info(self) -> dict[str, Any] | None:
        """None when no engine answers."""
        found = self.command(["docker", "info", "--format", "{{json .}}"])
        try:
            document = json.loads(found.stdout) if found.returncode == 0 else None
        except ValueError:
            return None
        usable = isinstance(document, dict) and document.get("ServerVersion")
        return document if usable else None

    @cached_property
    def gpu(self) -> GpuEvidence:
        from stackctl.runtime.gpu_probe import probe

        return probe()

    @property
    def gpu_mode(self) -> ChosenMode:
        """The way to the GPU that `up` would render. Where it would refuse, another check says so."""
        wanted = self.config.gpu if self.config else GpuConfig()
        return choose_gpu(GpuConfig(mode=wanted.mode), self.gpu).mode

    @cached_property
    def choice(self) -> Choice:
        """Where `up` would run the stack, as it would find out itself. With no stack file: the one that it
        would write."""
        if self.chosen is not None:
            return self.chosen
        return by_what_answers(self.command) if self.config is None else choose(self.config, self.command)

    @property
    def uses_docker(self) -> bool:
        return self.choice.name == "docker"

    def read(self, path: str) -> str | None:
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return None


def version_numbers(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part is not None) if match else ()
