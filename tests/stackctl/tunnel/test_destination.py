import pytest

from stackctl.errors import UsageError
from stackctl.tunnel.destination import Destination, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("box", Destination("box")),
        ("gpu-1.example.org", Destination("gpu-1.example.org")),
        ("me@box", Destination("box", "me")),
        ("me@box:2222", Destination("box", "me", 2222)),
        ("10.0.0.5", Destination("10.0.0.5")),
        ("::1", Destination("::1")),
        ("fe80::1%eth0", Destination("fe80::1%eth0")),
        ("me@[::1]:22", Destination("::1", "me", 22)),
        ("ssh://me@box:2222", Destination("box", "me", 2222)),
        ("me@corp@box", Destination("box", "me@corp")),
    ],
)
def test_accepts_what_ssh_users_write(text: str, expected: Destination) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=touch /tmp/x",
        "-F/etc/passwd",
        "me@-oProxyCommand=x",
        "-x@box",
        "",
        "box; rm -rf x",
        "$(id)@box",
        "`id`",
        "box:http",
        "box:70000",
        "box:0",
        "me@",
        ".",
        "..",
        "me@..",
        "a b",
        "box\nProxyCommand x",
    ],
)
def test_refuses_options_and_shell_characters(text: str) -> None:
    with pytest.raises(UsageError, match="cannot use"):
        parse(text)


def test_prints_itself() -> None:
    assert str(parse("me@[::1]:22")) == "me@[::1]:22"
    assert str(parse("me@box:2")) == "me@box:2"
    assert str(parse("box")) == "box"


def test_is_typed_after_ssh_as_ssh_takes_it() -> None:
    assert parse("me@box:2").words == "-p 2 me@box"
    assert parse("[::1]:22").words == "-p 22 ::1"
    assert parse("box").words == "box"
