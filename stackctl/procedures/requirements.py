"""What `requires:` asks of the host, looked at before the first step: all that is missing, at once."""

from __future__ import annotations

import os
import shutil

from stackctl.errors import PreflightError
from stackctl.operations import underway
from stackctl.procedures.host import Host
from stackctl.procedures.model import Requires


def refuse_unless_met(requires: Requires, host: Host | None) -> None:
    missing = [
        f"the program {program} is not on the PATH"
        for program in requires.programs
        if not shutil.which(program)
    ]
    if requires.root and os.geteuid() != 0:
        missing.append(f"it must run as root, and this is user {os.geteuid()}")
    if requires.stack and host is None:
        raise PreflightError("there is no stack.yaml here", fix="stackctl init")
    if host is not None and requires.runtime and host.runtime_name != requires.runtime:
        missing.append(
            f"it is for the {requires.runtime} runtime, and this stack runs on {host.runtime_name}"
        )
    if host is not None and requires.running and not host.is_running():
        raise PreflightError(f"the stack {host.name} is not running", fix="stackctl up")
    if host is not None and requires.settled:
        underway.refuse_while_open(host.handle)
    if missing:
        raise PreflightError("the host does not meet what the procedure requires: " + "; ".join(missing))
