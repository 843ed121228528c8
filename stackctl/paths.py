"""Where stackctl keeps what it knows about a stack: one folder per stack name."""

from __future__ import annotations

import os
from pathlib import Path


def state_root() -> Path:
    """`$XDG_STATE_HOME/stackctl`, or `/var/lib/stackctl` for root, unless XDG_STATE_HOME is set."""
    xdg = os.environ.get("XDG_STATE_HOME")
    if xdg:
        return Path(xdg) / "stackctl"
    if os.geteuid() == 0:
        return Path("/var/lib/stackctl")
    return Path.home() / ".local" / "state" / "stackctl"


def state_dir(stack: str) -> Path:
    return state_root() / stack


def data_dir(stack: str) -> Path:
    """`$XDG_DATA_HOME/stackctl/<stack>`: models and databases; root keeps them beside the state."""
    xdg = os.environ.get("XDG_DATA_HOME")
    if xdg:
        return Path(xdg) / "stackctl" / stack
    if os.geteuid() == 0:
        return state_dir(stack) / "data"
    return Path.home() / ".local" / "share" / "stackctl" / stack


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/stackctl`: what can be made again at any time."""
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "stackctl"


def config_home() -> Path:
    """`$XDG_CONFIG_HOME/stackctl`: the user's own files, such as hosts.yaml."""
    xdg = os.environ.get("XDG_CONFIG_HOME")
    return (Path(xdg) if xdg else Path.home() / ".config") / "stackctl"
