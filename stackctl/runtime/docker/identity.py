"""Who a container's user is outside of it: which user id can read what `up` prepares.

In the usual engine ids are the same on both sides. In a rootless one only 0 is the person who runs it, every
other id is one of their subordinate ids, which owns nothing. With `userns-remap` no id inside is anybody's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from stackctl.errors import StackctlError
from stackctl.runtime.command import run
from stackctl.runtime.docker import asking

UNPRIVILEGED = "10001:10001"


@dataclass(frozen=True)
class Identity:
    rootless: bool = False
    shifted: bool = False


def identity() -> Identity:
    """An engine that does not answer is taken for a usual one: others say that it does not answer."""
    try:
        return of_options(asking.information().get("SecurityOptions") or [])
    except (asking.NotHere, StackctlError):
        asked = run(["docker", "info", "--format", "{{json .SecurityOptions}}"], timeout=60, check=False)
    try:
        options = json.loads(asked.stdout) if asked.returncode == 0 else None
    except ValueError:
        options = None
    return of_options(options or [])


def of_options(options: list[str]) -> Identity:
    names = {word for option in options for word in option.split(",")}
    return Identity("name=rootless" in names, "name=userns" in names)


def container_user(engine: Identity) -> str:
    """Containers run as whoever owns the data: ourselves, or an unprivileged id when we are root."""
    if engine.rootless:
        return "0:0"  # which is us, with no more rights than we have
    uid = os.geteuid()
    return UNPRIVILEGED if uid == 0 else f"{uid}:{os.getegid()}"
