"""Secrets stay out of text, however it was quoted and wherever it was cut into pieces."""

import json
import shlex
from urllib.parse import quote_plus

import pytest

from stackctl.redact import Stream, hiding, redacted, redacted_values, without_known

AWKWARD = 'it\'s "a" $ecret/with\\all'
LONGER = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        AWKWARD,
        shlex.join(["curl", f"--key={AWKWARD}"]),
        json.dumps({"key": AWKWARD}),
        repr(AWKWARD),
        repr([AWKWARD, "'\""]),
        "https://h/?k=" + quote_plus(AWKWARD),
    ],
)
def test_a_quoted_secret_is_hidden_too(text: str) -> None:
    with hiding([AWKWARD]):
        shown = redacted(text)
    assert "ecret" not in shown and "***" in shown
    assert redacted("plain " + AWKWARD) == "plain " + AWKWARD, "only for as long as the block runs"


def test_each_line_of_a_longer_secret_is_hidden() -> None:
    with hiding([LONGER]):
        assert "MIIE" not in redacted("it said:\n  MIIEvQIBADANBgkqhkiG\n")


def test_numbers_and_keys_keep_their_form() -> None:
    with hiding(["1234"]):
        found = redacted_values({"pid": 77, "pin": 1234, "more": ["is 1234", None, True], "path": object})
    assert found["pid"] == 77 and found["pin"] == "***" and found["more"] == ["is ***", None, True]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_a_secret_across_the_border_of_two_pieces(size: int) -> None:
    text = "abcabcabd-abca-abcabcabd!ab"
    with hiding(["abcabcabd", "abca"]):
        stream = Stream()
        pieces = [stream.feed(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join([*pieces, stream.close()]) == without_known(text) == "***-***-***!ab"
