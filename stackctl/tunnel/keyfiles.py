"""Private keys and certificates in files, as far as the in-process transport can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paramiko

_LOCKED_PKCS8 = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_KINDS: tuple[Any, ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


def read_key(path: Path, passphrase: str | None) -> Any:
    for kind in _KINDS:
        try:
            return kind.from_private_key_file(str(path), passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError):
            continue
    raise paramiko.SSHException("wrong passphrase" if passphrase else "not a key that can be read")


def is_pkcs8(path: Path) -> bool:
    return _first_line(path) in (b"-----BEGIN PRIVATE KEY-----", _LOCKED_PKCS8)


def _first_line(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline(100).strip()
    except OSError:
        return b""


def is_encrypted(path: Path) -> bool:
    if _first_line(path) == _LOCKED_PKCS8:
        return True
    try:
        read_key(path, None)
    except paramiko.PasswordRequiredException:
        return True
    except (paramiko.SSHException, OSError):
        return False
    return False


def public_blob_of(path: Path) -> bytes | None:
    """The public half of a key file, from beside it or from within."""
    try:
        return paramiko.pkey.PublicBlob.from_file(f"{path}.pub").key_blob
    except (OSError, ValueError, IndexError):
        pass
    try:
        return bytes(read_key(path, None).asbytes())
    except (OSError, paramiko.SSHException):
        return None


def certifies(certificate: Path, path: Path) -> bool:
    try:
        blob = paramiko.pkey.PublicBlob.from_file(str(certificate))
        message = paramiko.Message(blob.key_blob)
    except (OSError, ValueError, IndexError):
        return False
    message.get_text()
    message.get_binary()  # nonce
    public = public_blob_of(path)
    # A certificate carries the fields of the public key right after its nonce.
    fields = paramiko.Message(public) if public else None
    if fields is None:
        return False
    fields.get_text()
    return bool(message.get_remainder().startswith(fields.get_remainder()))
