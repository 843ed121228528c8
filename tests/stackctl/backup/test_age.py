"""Our age files open with the `age` program, and its files with ours; damage is refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stackctl.backup import age, bech32

needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_there_and_back(size: int) -> None:
    secret, public = age.new_identity()
    data = bytes(range(256)) * (size // 256 + 1)
    blob = age.encrypt(data[:size], recipients=[public])
    assert age.decrypt(blob, identities=[secret]) == data[:size]


def test_passphrase_and_wrong_passphrase() -> None:
    blob = age.encrypt(b"secret", passphrase="correct horse")
    assert age.decrypt(blob, passphrase="correct horse") == b"secret"
    with pytest.raises(age.CannotOpen, match="passphrase is wrong"):
        age.decrypt(blob, passphrase="wrong horse")
    with pytest.raises(age.CannotOpen, match="encrypted with a passphrase"):
        age.decrypt(blob)


def test_wrong_key_and_every_flipped_byte_is_refused() -> None:
    secret, public = age.new_identity()
    blob = age.encrypt(b"secret", recipients=[public])
    with pytest.raises(age.CannotOpen, match="none of the keys"):
        age.decrypt(blob, identities=[age.new_identity()[0]])
    for place in range(len(blob)):
        damaged = bytearray(blob)
        damaged[place] ^= 1
        with pytest.raises(age.CannotOpen):
            age.decrypt(bytes(damaged), identities=[secret])


def test_mistyped_key_is_refused() -> None:
    _, public = age.new_identity()
    wrong = public[:-1] + ("q" if public[-1] != "q" else "p")
    with pytest.raises(ValueError, match="mistyped"):
        bech32.decode("age", wrong)


@needs_age
@pytest.mark.peer
def test_the_age_program_opens_ours_and_we_open_its(tmp_path: Path) -> None:
    secret, public = age.new_identity()
    key, ours, theirs = tmp_path / "key", tmp_path / "ours.age", tmp_path / "theirs.age"
    key.write_text(secret + "\n")
    ours.write_bytes(age.encrypt(b"from us", recipients=[public]))
    opened = subprocess.run(["age", "-d", "-i", key, ours], capture_output=True, check=True)
    assert opened.stdout == b"from us"
    subprocess.run(["age", "-r", public, "-o", theirs], input=b"from age", check=True)
    assert age.decrypt(theirs.read_bytes(), identities=[secret]) == b"from age"
