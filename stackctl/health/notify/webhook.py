"""JSON to any URL. Placeholders are replaced inside the parsed body: no value breaks out of its string."""

from __future__ import annotations

import json
import re
from typing import Any

from stackctl.health.http import HttpError, request
from stackctl.health.notify.dispatch import NotDelivered
from stackctl.health.notify.message import Message
from stackctl.health.plan import Channel

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def send(channel: Channel, message: Message) -> None:
    payload = message.payload()
    if isinstance(channel.body, str):
        kind, body = "text/plain", fill(channel.body, payload).encode()
    else:
        filled = payload if channel.body is None else fill_all(channel.body, payload)
        kind, body = "application/json", json.dumps(filled, ensure_ascii=False).encode()
    headers = {"Content-Type": f"{kind}; charset=utf-8", **(channel.headers or {})}
    post(channel.method or "POST", channel.url or "", body, headers, channel.timeout)


def post(method: str, url: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    try:
        reply = request(method, url, timeout=timeout, body=body, headers=headers)
    except HttpError as error:
        raise NotDelivered(str(error)) from error
    if not 200 <= reply.status < 300:
        raise NotDelivered(f"answered {reply.status}: {reply.text[:80]}")


def fill_all(template: Any, payload: dict[str, Any]) -> Any:
    if isinstance(template, str):
        return fill(template, payload)
    if isinstance(template, dict):
        return {key: fill_all(value, payload) for key, value in template.items()}
    if isinstance(template, list):
        return [fill_all(value, payload) for value in template]
    return template


def fill(template: str, payload: dict[str, Any]) -> str:
    """`{summary}` becomes its value; braces around anything that is no placeholder stay as they are."""
    return _PLACEHOLDER.sub(
        lambda match: str(payload[match[1]]) if match[1] in payload else match[0],
        template,
    )
