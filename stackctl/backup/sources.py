"""What of a stack is authoritative: folders whose loss could not be made good by a pull or a build."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from stackctl.config import StackConfig

# What a service can make again: not worth a backup's space.
_DISPOSABLE: dict[str, tuple[str, ...]] = {"webui": ("cache/*", "*.log"), "proxy": ("locks/*",)}
# What a service cannot do without: a copy of it that is damaged is no copy.
_VITAL: dict[str, tuple[str, ...]] = {"webui": ("webui.db", "vector_db/chroma.sqlite3")}
_FOLDERS = ("webui", "comfyui", "proxy")


@dataclass(frozen=True)
class Source:
    service: str
    folder: Path
    disposable: tuple[str, ...] = ()
    vital: tuple[str, ...] = ()

    def wanted(self, relative: str) -> bool:
        return not any(fnmatch(relative, pattern) for pattern in self.disposable)


def of(config: StackConfig) -> list[Source]:
    """The data folders of the enabled services that are there."""
    enabled = config.services.enabled()
    return [
        Source(name, folder, _DISPOSABLE.get(name, ()), _VITAL.get(name, ()))
        for name in _FOLDERS
        if name in enabled and (folder := config.data_path / name).is_dir()
    ]
