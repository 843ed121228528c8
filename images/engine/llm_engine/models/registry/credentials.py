"""Names and passwords for private registries: our own file (mode 0600), then Docker's configuration and its
helpers.

A password is never logged and never part of an error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_engine.models.errors import RegistryError

HELPER_TIMEOUT = 20


def default_path() -> Path:
    return Path.home() / ".ollama" / "credentials.json"


def docker_config() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


@dataclass(frozen=True)
class Credential:
    username: str
    password: str = field(repr=False)
    token_server: str = ""
    """Another host that may know the password, because it gives out the registry's tokens."""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Credentials:
    def __init__(self, path: Path | None = None, docker: Path | None = None) -> None:
        self.path = path or default_path()
        self.docker = docker or docker_config()

    def get(self, host: str) -> Credential | None:
        """What is known for a host (`name` or `name:port`)."""
        entry = _read(self.path).get(host)
        if isinstance(entry, dict) and isinstance(entry.get("username"), str):
            texts = (str(entry.get(key, "")) for key in ("password", "token_server"))
            return Credential(entry["username"], *texts)
        return self._from_docker(host)

    def save(self, host: str, credential: Credential) -> None:
        entries = _read(self.path, strict=True)
        entries[host] = {"username": credential.username, "password": credential.password}
        if credential.token_server:
            entries[host]["token_server"] = credential.token_server
        self._write(entries)

    def remove(self, host: str) -> bool:
        entries = _read(self.path, strict=True)
        if entries.pop(host, None) is None:
            return False
        self._write(entries)
        return True

    def _write(self, entries: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file 0600 from the start: there is no moment when others can read it.
        handle, name = tempfile.mkstemp(prefix=".credentials-", dir=self.path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(entries, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self.path)

    def _from_docker(self, host: str) -> Credential | None:
        config = _read(self.docker)
        helpers = config.get("credHelpers")
        helper = helpers.get(host) if isinstance(helpers, dict) else None
        helper = helper or config.get("credsStore")
        if isinstance(helper, str) and helper:
            found = _ask_helper(helper, host)
            if found:
                return found
        auths = config.get("auths")
        entry = auths.get(host) or auths.get(f"https://{host}") if isinstance(auths, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("auth"), str):
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                user, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
                if colon:
                    return Credential(user, password)
        return None


def _read(path: Path, *, strict: bool = False) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        if strict:
            raise RegistryError(f"cannot read {path}: {error}") from None
        return {}
    return document if isinstance(document, dict) else {}


def _ask_helper(name: str, host: str) -> Credential | None:
    """A Docker credential helper: the host on its stdin, JSON on its stdout, a failure when it knows
    nothing."""
    if "/" in name:
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{name}", "get"],
            input=host,
            capture_output=True,
            text=True,
            timeout=HELPER_TIMEOUT,
            check=True,
        )
        answer = json.loads(done.stdout)
        return Credential(str(answer["Username"]), str(answer["Secret"]))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
