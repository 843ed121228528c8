"""From files to a StackConfig: find, read, lay over, fill in, validate. Every problem is reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stackctl.config import overlay as overlays
from stackctl.config import problems as findings
from stackctl.config import yaml_source
from stackctl.config.stack import StackConfig
from stackctl.config.yaml_source import KeyPath, Origin
from stackctl.errors import ConfigError

DEFAULT_FILE = "stack.yaml"


@dataclass(frozen=True)
class Loaded:
    """A configuration with the files it came from and the origin of every written value."""

    config: StackConfig
    files: tuple[Path, ...]
    origins: Mapping[KeyPath, Origin]

    @property
    def overlay(self) -> str | None:
        """The name of the overlay that was laid over the stack file."""
        if len(self.files) < 2:
            return None
        main, extra = self.files[:2]
        return extra.name.removeprefix(f"{main.stem}.").removesuffix(main.suffix)


def find(stack_file: str | None) -> Path:
    """`-f FILE`, else `STACKCTL_FILE`, else ./stack.yaml; a folder means the stack.yaml in it."""
    path = Path(stack_file or os.environ.get("STACKCTL_FILE") or DEFAULT_FILE)
    return path / DEFAULT_FILE if path.is_dir() else path


def overlay_file(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{path.suffix}")


def load(stack_file: str | None = None, overlay: str | None = None) -> StackConfig:
    return load_with_origins(stack_file, overlay).config


def load_with_origins(stack_file: str | None = None, overlay: str | None = None) -> Loaded:
    path = find(stack_file)
    if not path.exists():
        raise ConfigError(f"no stack file: {path} does not exist", fix="stackctl init")
    source, files = yaml_source.read(path), [path.absolute()]
    overlay = overlay or os.environ.get("STACKCTL_OVERLAY")
    if overlay:
        extra = overlay_file(path, overlay)
        if not extra.exists():
            there = sorted(other.name for other in path.parent.glob(f"{path.stem}.*{path.suffix}"))
            known = f" (there: {', '.join(there)})" if there else ""
            raise ConfigError(
                f"no overlay '{overlay}': {extra} does not exist{known}", fix=f"ls {path.parent}"
            )
        source, files = overlays.merge(source, yaml_source.read(extra)), [*files, extra.absolute()]
    source, problems = overlays.interpolate(source, os.environ)
    try:
        config = StackConfig.model_validate(source.data, context={"base": str(path.absolute().parent)})
    except ValidationError as error:
        problems += findings.explain(error, StackConfig, source.origins)
        config = None
    if problems or config is None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise ConfigError(
            f"{path} is not valid: {count}",
            problems=problems,
            fix="stackctl config docs shows every key and its default",
        )
    return Loaded(config, tuple(files), source.origins)
