"""Request bodies on disk, for whoever must see what a client really sends. Only when asked for.

`OLLAMA_DEBUG_LOG_REQUESTS`, as in Ollama: each request for text or vectors is written to a folder of its own
under the temporary directory, as it came, with a script beside it that sends it again. Prompts are in there,
so the folder is its owner's alone, the server warns at start, and only the latest requests are kept. A disk
that is full costs the log, never the request.
"""

from __future__ import annotations

import logging
import re
import shlex
import tempfile
from collections import deque
from pathlib import Path

log = logging.getLogger("llm_engine.api.requestlog")
KEPT = 1000


class RequestLog:
    def __init__(self, parent: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ollama-request-logs-", dir=parent))
        self._written: deque[tuple[Path, Path]] = deque()
        self._count = 0
        self._failed = False

    def write(self, path: str, request_id: str, body: bytes, address: str) -> None:
        """Called in a thread. `path` is a declared route's and `address` the server's own: nothing that a
        client chose stands in the script, but for its id, which is checked where it comes in."""
        self._count += 1
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", f"{self._count:06d}{path}-{request_id}")
        document, script = self.folder / f"{stem}.json", self.folder / f"{stem}.sh"
        try:
            document.write_bytes(body)
            script.write_text(
                "#!/bin/sh\n"
                f"curl -sS -H 'Content-Type: application/json' --data-binary @{shlex.quote(str(document))} "
                f"{shlex.quote(address + path)}\n"
            )
            script.chmod(0o700)
        except OSError as error:
            if not self._failed:
                log.warning("requests are not logged any more", extra={"data": {"reason": str(error)}})
            self._failed = True
            return
        self._failed = False
        self._written.append((document, script))
        while len(self._written) > KEPT:
            for old in self._written.popleft():
                old.unlink(missing_ok=True)
