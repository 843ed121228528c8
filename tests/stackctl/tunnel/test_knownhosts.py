import base64
import subprocess
import threading
from pathlib import Path

import pytest

from stackctl.tunnel import knownhosts
from tests.support.sshd import keygen, public

BLOB, OTHER = b"the key", b"another key"


def line(names: str, blob: bytes = BLOB, kind: str = "ssh-ed25519", marker: str = "") -> str:
    return f"{marker}{names} {kind} {base64.b64encode(blob).decode()}"


def state(tmp_path: Path, *lines: str, name: str = "box", blob: bytes = BLOB) -> str:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return knownhosts.judge(knownhosts.read([path]), name, "ssh-ed25519", blob).state


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("box", "box", "known"),
        ("box,10.0.0.5", "10.0.0.5", "known"),
        ("BOX", "box", "known"),
        ("*.example.org", "gpu.example.org", "known"),
        ("*.example.org,!gpu.example.org", "gpu.example.org", "unknown"),
        ("b?x", "box", "known"),
        ("[box]:2222", "[box]:2222", "known"),
        ("[box]:2222", "b:2222", "unknown"),
        ("box", "[box]:2222", "unknown"),
        ("other", "box", "unknown"),
    ],
)
def test_names(tmp_path: Path, names: str, name: str, expected: str) -> None:
    assert state(tmp_path, line(names), name=name) == expected


def test_a_different_key_is_changed_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# comment\n\n" + line("box", OTHER) + "\n")
    verdict = knownhosts.judge(knownhosts.read([path]), "box", "ssh-ed25519", BLOB)
    assert verdict.state == "changed"
    assert verdict.expected[0].where == f"{path}:3"


def test_several_key_types_of_one_host(tmp_path: Path) -> None:
    lines = [line("box", OTHER, "ssh-rsa"), line("box")]
    assert state(tmp_path, *lines) == "known"
    path = tmp_path / "known_hosts"
    assert knownhosts.known_types(knownhosts.read([path]), "box") == ["ssh-rsa", "ssh-ed25519"]


def test_a_revoked_key_is_revoked_although_it_is_known(tmp_path: Path) -> None:
    assert state(tmp_path, line("box"), line("*", marker="@revoked ")) == "revoked"


@pytest.mark.parametrize("text", ["garbage", "box ssh-ed25519", "box ssh-ed25519 !!!", "|1|x|y ssh-rsa AAAA"])
def test_damaged_lines_match_nothing(tmp_path: Path, text: str) -> None:
    assert state(tmp_path, text) == "unknown"


def test_a_missing_file_knows_nobody(tmp_path: Path) -> None:
    assert knownhosts.read([tmp_path / "none"]) == []


def test_hashed_lines_agree_with_ssh_keygen(tmp_path: Path) -> None:
    key = keygen(tmp_path / "key")
    kind, text = public(key).split()[:2]
    blob = base64.b64decode(text)
    path = tmp_path / "known_hosts"
    path.write_text(f"[box]:2222 {kind} {text}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert path.read_text().startswith("|1|")
    assert knownhosts.judge(knownhosts.read([path]), "[box]:2222", kind, blob).state == "known"
    # ... and ssh-keygen finds what we have written.
    knownhosts.append(path, knownhosts.line_text("other", kind, blob, hashed=True))
    found = subprocess.run(["ssh-keygen", "-F", "other", "-f", str(path)], capture_output=True, text=True)
    assert text in found.stdout


def test_fingerprint_agrees_with_ssh_keygen(tmp_path: Path) -> None:
    key = keygen(tmp_path / "key")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{key}.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert knownhosts.fingerprint(base64.b64decode(public(key).split()[1])) in shown


def test_appending_keeps_what_is_there_whoever_writes(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "known_hosts"
    knownhosts.append(path, line("first"))
    path.write_text(path.read_text().rstrip("\n"))  # an editor left the last line open
    writers = [threading.Thread(target=knownhosts.append, args=(path, line(f"host{n}"))) for n in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = {each.names[0] for each in knownhosts.read([path])}
    assert names == {"first", *(f"host{n}" for n in range(20))}
