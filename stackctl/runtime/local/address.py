"""Where the supervisor of a local stack listens. Alone here, so that asking it costs only a socket."""

from __future__ import annotations

import os
from pathlib import Path


def socket_path(state: Path) -> Path:
    """In the state folder, or, where that is too long for a socket, a short name in the temporary folder."""
    path = state / "supervisor.sock"
    if len(str(path)) < 100:
        return path
    import hashlib

    short = hashlib.sha256(str(state).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"stackctl-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{short}.sock"
