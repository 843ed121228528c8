"""Secrets: made once, readable by their owner only, and never to be seen."""

from __future__ import annotations

import json
import pickle
import stat
from pathlib import Path

import pytest

from stackctl.errors import UsageError
from stackctl.redact import Secret, redacted
from stackctl.runtime import audit
from stackctl.runtime.secrets import SecretStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretStore:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return SecretStore("t")


def test_made_once_and_kept(store: SecretStore) -> None:
    assert store.ensure(("a",), frozenset({"a"})) == ["a"]
    value = store.get("a").reveal()
    assert len(value) > 40
    assert store.ensure(("a",), frozenset({"a"})) == []
    assert store.get("a").reveal() == value
    assert stat.S_IMODE(store.path("a").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    store.rotate("a")
    assert store.get("a").reveal() != value


def test_one_that_a_person_must_set_is_asked_for(store: SecretStore) -> None:
    with pytest.raises(UsageError) as caught:
        store.ensure(("hf_token",), frozenset())
    assert caught.value.fix == "stackctl secrets set hf_token"


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", "a" * 70, ".a"])
def test_names_that_are_no_names(store: SecretStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.set(name, "value")


def test_an_empty_value_is_refused(store: SecretStore) -> None:
    with pytest.raises(UsageError, match="empty"):
        store.set("a", " \n")


def test_a_secret_has_one_string_form() -> None:
    secret = Secret("correct-horse-battery")
    assert {str(secret), f"{secret}", f"{secret!s:}"} == {"***"}
    assert repr(secret) == "Secret(***)"
    assert json.dumps({"a": secret}, default=str) == '{"a": "***"}'
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() not in redacted(f"--key={secret.reveal()} and {secret.reveal()}")


def test_nothing_of_a_secret_in_the_audit_log(store: SecretStore) -> None:
    store.set("a", "open-sesame-please")
    value = store.get("a").reveal()
    audit.record("t", "test", result=f"failed with {value}", argv=[value])
    text = (store.folder.parent / "audit.jsonl").read_text()
    assert value not in text and "***" in text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("--api-key=s3cr3ts3cr3t", "s3cr3ts3cr3t"),
        ("WEBUI_SECRET_KEY=0123456789", "0123456789"),
        ("password: hunter2", "hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, hidden: str) -> None:
    assert hidden not in redacted(text)
