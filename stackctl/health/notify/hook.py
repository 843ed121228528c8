"""A program of the user's: the message in its environment and, as JSON, on its standard input."""

from __future__ import annotations

import json

from stackctl.health.notify.dispatch import NotDelivered
from stackctl.health.notify.message import Message
from stackctl.health.plan import Channel
from stackctl.runtime.command import clean_environment, run, tail

_VARIABLES = (
    "stack",
    "host",
    "kind",
    "status",
    "before",
    "check",
    "title",
    "summary",
    "subject",
    "text",
    "time",
)


def send(channel: Channel, message: Message) -> None:
    payload = message.payload()
    variables = {f"STACKCTL_{name.upper()}": str(payload[name]) for name in _VARIABLES}
    done = run(
        channel.argv or (),
        timeout=channel.timeout,
        env=clean_environment(variables),
        input=json.dumps(payload, ensure_ascii=False),
        check=False,
    )
    if done.returncode != 0:
        said = tail(done.stderr, 2) or tail(done.stdout, 2) or "it said nothing"
        raise NotDelivered(f"exit {done.returncode}: {said}")
