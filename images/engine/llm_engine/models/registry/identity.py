"""The ed25519 key by which Ollama's registry knows a user: `~/.ollama/id_ed25519`, in OpenSSH form, shared
with Ollama."""

from __future__ import annotations

import base64
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llm_engine.models.errors import RegistryError


def default_path() -> Path:
    return Path.home() / ".ollama" / "id_ed25519"


@dataclass(frozen=True)
class Identity:
    private: Ed25519PrivateKey
    public: str
    """The base64 part of the OpenSSH public key."""

    @classmethod
    def load(cls, path: Path | None = None, *, create: bool = True) -> Identity:
        path = path or default_path()
        if not path.exists() and create:
            try:
                _create(path)
            except OSError as error:
                raise RegistryError(f"cannot write the key {path}: {error}") from None
        try:
            key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise RegistryError(f"cannot read the key {path}: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise RegistryError(f"the key {path} is not an ed25519 key")
        return cls(key, _public(key).split()[1])

    def sign(self, text: str) -> str:
        """`<public key>:<signature>`, the form of the Authorization header."""
        signature = self.private.sign(text.encode())
        return f"{self.public}:{base64.b64encode(signature).decode()}"


def _public(key: Ed25519PrivateKey) -> str:
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode()


def _create(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # Written aside and linked whole: a reader beside us, or after a kill, never meets half a key.
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(handle)
        os.link(aside, path)
    except FileExistsError:
        return  # another process was faster; its key is as good
    finally:
        os.unlink(aside)
    path.with_suffix(".pub").write_text(_public(key) + "\n")
