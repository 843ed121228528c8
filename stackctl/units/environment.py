"""The environment that the stack was installed in, kept for its units and cron lines in `units.env`.

A stack file that says `${MODELS}`, state in XDG_STATE_HOME or an engine chosen by DOCKER_CONTEXT mean
something else, or nothing, to a unit that starts with an empty environment: another stack would come up at
boot. The file is readable by its owner alone, because a value may be a secret, and is written so that systemd
and a shell read the same in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stackctl.config import Loaded

# What stackctl itself goes by; PATH, because local services are programs that were found on it.
_OWN = (
    "PATH",
    "HOME",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "CUDA_VISIBLE_DEVICES",
)
_SPECIAL = re.compile(r'(["\\$`])')
_ESCAPED = r"\\\1"


def needed(loaded: Loaded, environ: Mapping[str, str]) -> dict[str, str]:
    """Those that the stack file refers to, and those that stackctl goes by, as far as they are set."""
    named = {name for origin in loaded.origins.values() for name in origin.variables}
    return {name: environ[name] for name in sorted({*named, *_OWN}) if environ.get(name)}


def text(values: Mapping[str, str]) -> str:
    lines = ["# Made by stackctl install-units: what was set then. Install again after a change."]
    # Within double quotes both readers take a backslash before these, and nothing else, as special.
    lines += [f'{name}="{_SPECIAL.sub(_ESCAPED, value)}"' for name, value in values.items()]
    return "\n".join(lines) + "\n"


def write(path: Path, values: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text(values))
    aside.rename(path)
