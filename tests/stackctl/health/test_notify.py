"""Messages over every channel to a real server, and the dispatcher's promises: bounded, merged, not lost."""

from __future__ import annotations

import json
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

from stackctl.health.evaluator import Kind
from stackctl.health.moment import Moment
from stackctl.health.notify import channels, dispatch
from stackctl.health.notify.dispatch import NotDelivered
from stackctl.health.notify.message import Message, digest
from stackctl.health.plan import Channel
from stackctl.health.state import Memory
from tests.stackctl.health.support.plans import channel, notify
from tests.stackctl.health.support.servers import mail_server, recording_server

NOW = Moment(1_700_000_000.0, 1000.0, "boot-1")
MESSAGE = Message(
    stack="home",
    host="gpu1",
    kind=Kind.PROBLEM,
    status="CRITICAL",
    before="OK",
    check="engine",
    title="Engine answers",
    summary='refused: "quoted" \\ ünïcode',
    fix="stackctl restart engine",
    time="2026-01-01T00:00:00+0000",
)


def message(check: str = "engine", status: str = "CRITICAL", before: str = "OK") -> Message:
    kind = Kind.RECOVERY if status == "OK" else Kind.PROBLEM
    return replace(MESSAGE, check=check, status=status, before=before, kind=kind)


def test_webhook_sends_the_whole_message_or_a_template() -> None:
    with recording_server() as server:
        channels.send(channel(type="webhook", url=f"{server.url}/a", headers={"X-Key": "k"}), MESSAGE)
        body = {"text": "{status} {check}: {summary} {unknown}", "n": 3, "list": ["{host}"]}
        channels.send(channel(type="webhook", url=f"{server.url}/b", method="PUT", body=body), MESSAGE)
        channels.send(channel(type="webhook", url=f"{server.url}/c", body="plain {check}"), MESSAGE)
    whole = json.loads(server.seen[0].body)
    assert whole["summary"] == MESSAGE.summary
    assert whole["subject"] == "[home] CRITICAL: engine"
    assert server.seen[0].headers["X-Key"] == "k"
    filled = json.loads(server.seen[1].body)
    assert filled == {"text": f"CRITICAL engine: {MESSAGE.summary} {{unknown}}", "n": 3, "list": ["gpu1"]}
    assert server.seen[1].method == "PUT"
    assert server.seen[2].body == b"plain engine"


def test_webhook_refusals_are_not_delivered() -> None:
    with recording_server() as server:
        server.answer = lambda seen: (500, {}, b"oh no")
        with pytest.raises(NotDelivered, match="answered 500: oh no"):
            channels.send(channel(type="webhook", url=server.url), MESSAGE)
    with pytest.raises(NotDelivered, match="refused"):
        channels.send(channel(type="webhook", url=server.url), MESSAGE)


def test_ntfy_publishes_json_with_priority_and_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tk_123\n")
    with recording_server() as server:
        found = channel(type="ntfy", url=server.url, topic="home", token_file=str(token))
        channels.send(found, MESSAGE)
    body = json.loads(server.seen[0].body)
    assert (body["topic"], body["priority"], body["tags"]) == ("home", 5, ["rotating_light"])
    assert "ünïcode" in body["message"]
    assert server.seen[0].headers["Authorization"] == "Bearer tk_123"


def test_a_command_gets_the_message_in_its_environment_and_on_stdin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import json,os,sys; data = json.load(sys.stdin); "
        f"open({str(out)!r}, 'w').write(os.environ['STACKCTL_SUBJECT'] + '|' + data['summary'])"
    )
    channels.send(channel(type="command", argv=[sys.executable, "-c", code]), MESSAGE)
    assert out.read_text() == f"[home] CRITICAL: engine|{MESSAGE.summary}"
    with pytest.raises(NotDelivered, match="exit 3: went wrong"):
        channels.send(channel(type="command", argv=["sh", "-c", "echo went wrong >&2; exit 3"]), MESSAGE)
    with pytest.raises(NotDelivered, match="127"):
        channels.send(channel(type="command", argv=["/no/such/program"]), MESSAGE)


def mail(port: int, **values: object) -> Channel:
    base = {"type": "smtp", "host": "localhost", "port": port, "from": "a@x.example", "to": ["b@y.example"]}
    return channel(**(base | values))


def test_mail_over_starttls_with_login(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "password").write_text("hunter2")
    secure = {"ca_file": str(tmp_path / "ca.pem")}
    with mail_server(context) as box:
        channels.send(mail(box.port, user="u", password_file=str(tmp_path / "password"), **secure), MESSAGE)
    assert len(box.logins) == 1
    assert "Subject: [home] CRITICAL: engine" in box.mails[0]
    assert "Auto-Submitted: auto-generated" in box.mails[0]


def test_mail_refuses_what_is_not_safe(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2")
    login = {"user": "u", "password_file": str(tmp_path / "password")}
    with mail_server() as box:
        with pytest.raises(NotDelivered, match="needs security"):
            channels.send(mail(box.port, security="none", **login), MESSAGE)
        with pytest.raises(NotDelivered, match="STARTTLS"):
            channels.send(mail(box.port, **login), MESSAGE)
        assert box.logins == []
        channels.send(mail(box.port, security="none"), MESSAGE)
        box.refuse = True
        with pytest.raises(NotDelivered, match=r"refused b@y\.example"):
            channels.send(mail(box.port, security="none"), MESSAGE)
    assert len(box.mails) == 1
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with mail_server(context) as box, pytest.raises(NotDelivered, match="certificate verify failed"):
        channels.send(mail(box.port), MESSAGE)


class Sent:
    """A channel's other end that takes everything, or nothing."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Message]] = []
        self.down: set[str] = set()

    def __call__(self, channel: Channel, message: Message) -> None:
        if channel.label in self.down:
            raise NotDelivered("down")
        self.messages.append((channel.label, message))


HOOK = {"type": "webhook", "url": "http://127.0.0.1:1"}


def send_all(
    memory: Memory, messages: list[Message], sent: Sent, now: Moment = NOW, **values: object
) -> None:
    config = notify({"name": "a", **HOOK}, **values)
    dispatch.queue_up(memory, messages, config, now)
    dispatch.deliver(memory, config, sent, now)


def test_one_change_is_one_message_and_many_are_one_digest() -> None:
    memory, sent = Memory(), Sent()
    send_all(memory, [message()], sent)
    assert [m.subject for _, m in sent.messages] == ["[home] CRITICAL: engine"]
    send_all(memory, [message(f"c{n}") for n in range(9)], sent)
    assert sent.messages[-1][1].subject == "[home] CRITICAL: 9 checks changed"
    assert len(sent.messages) == 2
    assert memory.outbox == []


def test_the_rate_limit_holds_back_and_a_digest_makes_up_for_it() -> None:
    memory, sent = Memory(), Sent()
    limit = {"rate_limit": {"messages": 2, "per": "1h"}}
    at = NOW
    for n in range(30):
        at = at.plus(60)
        send_all(
            memory,
            [message("a", "OK" if n % 2 else "CRITICAL", "CRITICAL" if n % 2 else "OK")],
            sent,
            at,
            **limit,
        )
    assert len(sent.messages) == 2
    assert len(memory.held) == 1
    send_all(memory, [], sent, at.plus(3600), **limit)
    last = sent.messages[-1][1]
    assert len(sent.messages) == 3
    assert last.check == "a" and last.changes == 28
    assert memory.held == []


def test_a_channel_that_is_down_is_tried_again_and_holds_up_no_other() -> None:
    memory, sent = Memory(), Sent()
    config = notify({"name": "good", **HOOK}, {"name": "bad", **HOOK})
    sent.down = {"bad"}
    dispatch.queue_up(memory, [message()], config, NOW)
    done = dispatch.deliver(memory, config, sent, NOW)
    assert {(d.channel, d.problem) for d in done} == {("good", None), ("bad", "down")}
    assert [label for label, _ in sent.messages] == ["good"]
    sent.down = set()
    dispatch.deliver(memory, config, sent, NOW.plus(300))
    assert [label for label, _ in sent.messages] == ["good", "bad"]
    assert memory.outbox == []


def test_a_channel_never_hears_of_a_failure_after_its_recovery() -> None:
    memory, sent, told = Memory(), Sent(), []
    config = notify({"name": "a", **HOOK})

    def refuses_the_first(channel: Channel, message: Message) -> None:
        told.append(message.status)
        if len(told) == 1:
            raise NotDelivered("busy")

    failed = {"message": message().dump(), "to": ["a"], "since": NOW.dump()}
    back = {"message": message("engine", "OK", "CRITICAL").dump(), "to": ["a"], "since": NOW.dump()}
    other = {"message": message("disk").dump(), "to": ["a"], "since": NOW.dump()}
    memory.outbox = [failed, back, other]
    dispatch.deliver(memory, config, refuses_the_first, NOW)
    assert told == ["CRITICAL", "CRITICAL"], "the recovery waits behind its failure, the other check does not"
    dispatch.deliver(memory, config, sent, NOW.plus(300))
    assert [m.status for _, m in sent.messages] == ["CRITICAL", "OK"]
    assert memory.outbox == []


def test_what_waits_for_a_channel_becomes_its_last_word() -> None:
    memory, sent = Memory(), Sent()
    sent.down = {"a"}
    send_all(memory, [message()], sent)
    send_all(memory, [message("engine", "OK", "CRITICAL")], sent, NOW.plus(300))
    send_all(memory, [message(), message("disk")], sent, NOW.plus(600))
    sent.down = set()
    send_all(memory, [], sent, NOW.plus(900))
    assert [(m.check, m.status, m.changes) for _, m in sent.messages] == [
        ("engine", "CRITICAL", 3),
        ("disk", "CRITICAL", 1),
    ]
    assert memory.outbox == []


def test_one_of_two_messages_with_the_same_subject_is_struck_out_alone() -> None:
    memory, taken = Memory(), []
    config = notify({"name": "a", "timeout": "1s", **HOOK})
    entry = {"to": ["a"], "since": NOW.dump()}
    for change in (message(), message("engine", "OK", "CRITICAL"), message()):
        memory.outbox.append(dict(entry, message=change.dump()))

    def takes_two(channel: Channel, message: Message) -> None:
        if len(taken) == 2:
            raise NotDelivered("full")
        taken.append(message.status)

    dispatch.deliver(memory, config, takes_two, NOW)
    assert taken == ["CRITICAL", "OK"]
    assert [entry["message"]["status"] for entry in memory.outbox] == ["CRITICAL"]


def test_a_channel_that_breaks_is_a_problem_and_ends_no_lane() -> None:
    memory, taken = Memory(), []
    config = notify({"name": "a", **HOOK})

    def breaks_once(channel: Channel, message: Message) -> None:
        if message.check == "engine":
            raise UnicodeEncodeError("ascii", "pässword", 1, 2, "not ASCII")
        taken.append(message.check)

    dispatch.queue_up(memory, [message(), message("disk")], config, NOW)
    done = dispatch.deliver(memory, config, breaks_once, NOW)
    assert taken == ["disk"]
    assert next(d.problem for d in done if d.problem).startswith("UnicodeEncodeError: ")
    assert len(memory.outbox) == 1


def test_a_message_that_nobody_takes_is_given_up_after_a_day() -> None:
    memory, sent = Memory(), Sent()
    sent.down = {"a"}
    send_all(memory, [message()], sent)
    send_all(memory, [], sent, NOW.plus(3600))
    assert len(memory.outbox) == 1
    send_all(memory, [], sent, NOW.plus(90000))
    assert memory.outbox == []


def test_a_channel_gets_only_what_is_bad_enough_and_its_recovery() -> None:
    memory, sent = Memory(), Sent()
    config = notify({"name": "a", "min_severity": "critical", **HOOK})
    changes = [
        message("w", "WARNING"),
        message("c"),
        message("c", "OK", "CRITICAL"),
        message("w", "OK", "WARNING"),
    ]
    for change in changes:
        dispatch.queue_up(memory, [change], config, NOW)
        dispatch.deliver(memory, config, sent, NOW)
    assert [(m.check, m.status) for _, m in sent.messages] == [("c", "CRITICAL"), ("c", "OK")]


def test_a_hanging_channel_costs_its_time_limit_only() -> None:
    with recording_server() as server:
        server.hang.set()
        memory = Memory()
        config = notify({"type": "webhook", "url": server.url, "timeout": "500ms"})
        dispatch.queue_up(memory, [message()], config, NOW)
        begun = time.monotonic()
        done = dispatch.deliver(memory, config, channels.send, NOW)
        assert time.monotonic() - begun < 3
    assert done[0].problem is not None
    assert len(memory.outbox) == 1


def test_a_message_survives_the_state_file() -> None:
    both = digest([message("a"), message("b"), message("a", "OK", "CRITICAL")])
    assert Message.load(json.loads(json.dumps(both.dump()))) == both
    assert {part.check: part.before for part in both.parts} == {"a": "OK", "b": "OK"}


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "pigeon"},
        {"type": "webhook"},
        {"type": "webhook", "url": "ftp://x"},
        {"type": "ntfy", "topic": "has space"},
        {"type": "smtp", "host": "x", "from": "a@b", "to": []},
        {"type": "smtp", "host": "x", "from": "a@b", "to": ["c@d"], "user": "u"},
        {"type": "command", "argv": []},
        {"type": "command", "argv": ["x"], "timeout": 5},
    ],
)
def test_bad_channels_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        channel(**bad)
