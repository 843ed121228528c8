"""Which Docker Engine is meant: one answer, for the `docker` program and for the SDK.

Left to themselves the two differ: the program heeds contexts (DOCKER_CONTEXT, `docker context use`), the SDK
does not, and a rootless engine beside the system's would be changed by one and looked at by the other. The
order is the program's own: DOCKER_HOST, DOCKER_CONTEXT, the current context of its config file, the default
socket. Standard library only: every command asks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stackctl.errors import StackctlError

DEFAULT = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Endpoint:
    host: str
    source: str  # who decided
    certificates: str | None = None
    verified: bool = True
    plain: bool = False  # nobody chose anything: both sides take the default by themselves

    def environment(self) -> dict[str, str]:
        """What makes the program and the SDK (`docker.from_env`) talk to it."""
        if self.plain:
            return {}
        found = {"DOCKER_HOST": self.host}
        if self.certificates is not None:
            found["DOCKER_CERT_PATH"] = self.certificates
            found["DOCKER_TLS_VERIFY" if self.verified else "DOCKER_TLS"] = "1"
        return found


def resolve(environ: Mapping[str, str] | None = None) -> Endpoint:
    """Raises when a context is named that is not there: the default would be another engine."""
    environ = os.environ if environ is None else environ
    if host := environ.get("DOCKER_HOST"):
        certificates = environ.get("DOCKER_CERT_PATH") or None
        verified = bool(environ.get("DOCKER_TLS_VERIFY"))
        return Endpoint(host, "DOCKER_HOST", certificates, verified)
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home(), ".docker"))
    current = _current(folder / "config.json")
    name, source = environ.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
    if not name:
        name, source = current, f"the current context in {folder / 'config.json'}"
    if not name:
        return Endpoint(DEFAULT, "the default", plain=True)
    if name == "default":
        return Endpoint(DEFAULT, source)
    return _context(folder, name, source)


def environment() -> dict[str, str]:
    """For the commands that are run; a context that is not there is left to `docker` to complain of."""
    try:
        return resolve().environment()
    except StackctlError:
        return {"DOCKER_CONTEXT": os.environ["DOCKER_CONTEXT"]} if os.environ.get("DOCKER_CONTEXT") else {}


def _current(file: Path) -> str | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = found.get("currentContext") if isinstance(found, dict) else None
    return name if isinstance(name, str) and name else None


def _context(folder: Path, name: str, source: str) -> Endpoint:
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((folder / "contexts" / "meta" / digest / "meta.json").read_text(encoding="utf-8"))
        docker = meta["Endpoints"]["docker"]
        host = str(docker["Host"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackctlError(
            f"docker context '{name}' (named by {source}) cannot be used: {type(error).__name__}: {error}",
            fix="docker context ls, then docker context use NAME",
        ) from error
    certificates = folder / "contexts" / "tls" / digest / "docker"
    return Endpoint(
        host,
        f"context '{name}', named by {source}",
        str(certificates) if certificates.is_dir() else None,
        not docker.get("SkipTLSVerify"),
    )
