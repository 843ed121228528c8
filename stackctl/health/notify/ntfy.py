"""ntfy, through its JSON publishing (header publishing cannot carry every character)."""

from __future__ import annotations

import json
from pathlib import Path

from stackctl.health.model import Status
from stackctl.health.notify.dispatch import NotDelivered
from stackctl.health.notify.message import Message
from stackctl.health.notify.webhook import post
from stackctl.health.plan import Channel

_PRIORITY = {Status.CRITICAL: 5, Status.WARNING: 4, Status.UNKNOWN: 3, Status.OK: 3}
_TAG = {
    Status.CRITICAL: "rotating_light",
    Status.WARNING: "warning",
    Status.UNKNOWN: "grey_question",
    Status.OK: "white_check_mark",
}


def send(channel: Channel, message: Message) -> None:
    status = Status[message.status]
    body = {
        "topic": channel.topic,
        "title": message.subject,
        "message": message.text,
        "priority": _PRIORITY[status],
        "tags": [_TAG[status]],
    }
    headers = {"Content-Type": "application/json"}
    if channel.token_file:
        headers["Authorization"] = f"Bearer {read_secret(channel.token_file)}"
    post("POST", channel.url or "", json.dumps(body).encode(), headers, channel.timeout)


def read_secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotDelivered(f"{path}: {error.strerror}") from error
