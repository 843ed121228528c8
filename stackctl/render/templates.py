"""The Jinja templates of `compose/`, and a cache of what they compile to.

Compiling them is a good part of what rendering costs. The cache is keyed by the template's text and Jinja's
version, so it cannot be stale; where it cannot be written, rendering goes on without it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket

from stackctl import paths, shipped


class _Cache(jinja2.FileSystemBytecodeCache):
    def dump_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            super().dump_bytecode(bucket)


def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped.folder("compose")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        bytecode_cache=_cache(paths.cache_dir() / "templates"),
    )


def _cache(folder: Path) -> jinja2.BytecodeCache | None:
    """None where the folder cannot be made, or is another's: what is in it is run."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return None
    safe = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return _Cache(str(folder)) if safe else None
