"""Where stackctl keeps what it knows about a stack: one folder per stack name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: The folder of a host that bootstrap has prepared, under ~/.local/share/stackctl: see hosts/releases.py.
RELEASES = ".releases"


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


def program() -> Path:
    """The program, to be written down: units and cron lines outlive the release that wrote them."""
    here = Path(sys.executable)
    if len(here.parents) > 6 and here.parents[3].name == RELEASES:
        launcher = here.parents[6] / "bin" / "stackctl"
        if launcher.exists():
            return launcher
    return here.with_name("stackctl")
