"""The table of commands: name, home, one-line help (kept here so that --help imports nothing)."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    attribute: str
    help: str


COMMANDS: dict[str, Entry] = {}
