"""Files in the age format (age-encryption.org/v1): anyone with the `age` program can open them, without
stackctl.

Both kinds of recipient: a passphrase (scrypt) or public keys (X25519). Small texts only, whole in memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stackctl.backup import bech32
from stackctl.errors import StackctlError

_VERSION = b"age-encryption.org/v1"
_CHUNK = 64 * 1024
_WORK_FACTOR = 16
_MAX_WORK_FACTOR = 20
_ZERO = bytes(12)


class CannotOpen(StackctlError):
    """The wrong passphrase or key, or a damaged file."""


def encrypt(data: bytes, *, passphrase: str | None = None, recipients: Sequence[str] = ()) -> bytes:
    file_key = os.urandom(16)
    if passphrase is not None:
        stanzas = [_wrap_scrypt(file_key, passphrase)]
    else:
        stanzas = [_wrap_x25519(file_key, recipient) for recipient in recipients]
    header = _VERSION + b"\n" + b"".join(stanzas) + b"---"
    nonce = os.urandom(16)
    return header + b" " + _b64(_mac(file_key, header)) + b"\n" + nonce + _stream(file_key, nonce, data)


def decrypt(blob: bytes, *, passphrase: str | None = None, identities: Sequence[str] = ()) -> bytes:
    try:
        return _decrypt(blob, passphrase, identities)
    except (ValueError, IndexError) as error:
        raise CannotOpen(f"this is not a whole age file: {error}") from None


def _decrypt(blob: bytes, passphrase: str | None, identities: Sequence[str]) -> bytes:
    if not blob.startswith(_VERSION + b"\n"):
        raise ValueError("it does not begin like one")
    end = blob.index(b"\n---") + 1
    line_end = blob.index(b"\n", end)
    if blob[end + 3 : end + 4] != b" ":
        raise ValueError("its header does not end like one")
    header, mac = blob[: end + 3], _unb64(blob[end + 4 : line_end])
    file_key = _file_key(_stanzas(blob[len(_VERSION) + 1 : end]), passphrase, identities)
    if not hmac.compare_digest(mac, _mac(file_key, header)):
        raise CannotOpen("the header is damaged")
    nonce, payload = blob[line_end + 1 : line_end + 17], blob[line_end + 17 :]
    return _unstream(file_key, nonce, payload)


Stanza = tuple[list[str], bytes]


def _stanzas(text: bytes) -> list[Stanza]:
    found: list[Stanza] = []
    for line in text.decode("ascii").splitlines():
        if line.startswith("-> "):
            found.append((line[3:].split(" "), b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line.encode())
    return [(args, _unb64(body)) for args, body in found]


def _file_key(stanzas: list[Stanza], passphrase: str | None, identities: Sequence[str]) -> bytes:
    for args, body in stanzas:
        if args[0] == "scrypt":
            if passphrase is None:
                raise CannotOpen("it is encrypted with a passphrase", fix="give --passphrase-file FILE")
            salt, factor = _unb64(args[1].encode()), int(args[2])
            if factor > _MAX_WORK_FACTOR:
                raise ValueError(f"work factor {factor} is beyond reason")
            try:
                return ChaCha20Poly1305(_scrypt(passphrase, salt, factor)).decrypt(_ZERO, body, None)
            except InvalidTag:
                raise CannotOpen("the passphrase is wrong", fix="give --passphrase-file FILE") from None
        if args[0] == "X25519":
            for identity in identities:
                key = _open_x25519(args, body, identity)
                if key is not None:
                    return key
    raise CannotOpen("none of the keys opens it", fix="give --identity FILE with an AGE-SECRET-KEY-1… line")


def _wrap_scrypt(file_key: bytes, passphrase: str) -> bytes:
    salt = os.urandom(16)
    body = ChaCha20Poly1305(_scrypt(passphrase, salt, _WORK_FACTOR)).encrypt(_ZERO, file_key, None)
    return b"-> scrypt " + _b64(salt) + b" " + str(_WORK_FACTOR).encode() + b"\n" + _b64(body) + b"\n"


def _scrypt(passphrase: str, salt: bytes, factor: int) -> bytes:
    n = 1 << factor
    return hashlib.scrypt(
        passphrase.encode(), salt=_VERSION + b"/scrypt" + salt, n=n, r=8, p=1, maxmem=256 * n * 8, dklen=32
    )


def _wrap_x25519(file_key: bytes, recipient: str) -> bytes:
    public = bech32.decode("age", recipient)
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    body = ChaCha20Poly1305(_wrapping_key(shared, share + public)).encrypt(_ZERO, file_key, None)
    return b"-> X25519 " + _b64(share) + b"\n" + _b64(body) + b"\n"


def _open_x25519(args: list[str], body: bytes, identity: str) -> bytes | None:
    private = X25519PrivateKey.from_private_bytes(bech32.decode("age-secret-key-", identity.lower()))
    share = _unb64(args[1].encode())
    shared = private.exchange(X25519PublicKey.from_public_bytes(share))
    salt = share + private.public_key().public_bytes_raw()
    try:
        return ChaCha20Poly1305(_wrapping_key(shared, salt)).decrypt(_ZERO, body, None)
    except InvalidTag:
        return None


def new_identity() -> tuple[str, str]:
    """A secret key and its public key, as age writes them."""
    private = X25519PrivateKey.generate()
    secret = bech32.encode("age-secret-key-", private.private_bytes_raw()).upper()
    return secret, bech32.encode("age", private.public_key().public_bytes_raw())


def _wrapping_key(shared: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, _VERSION + b"/X25519").derive(shared)


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.new(HKDF(SHA256(), 32, b"", b"header").derive(file_key), header, "sha256").digest()


def _stream(file_key: bytes, nonce: bytes, data: bytes) -> bytes:
    cipher = ChaCha20Poly1305(HKDF(SHA256(), 32, nonce, b"payload").derive(file_key))
    chunks = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)] or [b""]
    last = len(chunks) - 1
    return b"".join(cipher.encrypt(_nonce(n, n == last), chunk, None) for n, chunk in enumerate(chunks))


def _unstream(file_key: bytes, nonce: bytes, payload: bytes) -> bytes:
    cipher = ChaCha20Poly1305(HKDF(SHA256(), 32, nonce, b"payload").derive(file_key))
    size = _CHUNK + 16
    chunks = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(chunks) - 1
    try:
        return b"".join(cipher.decrypt(_nonce(n, n == last), chunk, None) for n, chunk in enumerate(chunks))
    except InvalidTag:
        raise CannotOpen("the content is damaged") from None


def _nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    if _b64(data) != text:
        raise ValueError("a text in it is not canonical base64")
    return data
