"""From a channel's type to the module that carries a message over it, imported when it is used."""

from __future__ import annotations

import importlib

from stackctl.health.notify.message import Message
from stackctl.health.plan import Channel

_MODULES = {"command": "hook", "webhook": "webhook", "ntfy": "ntfy", "smtp": "mail"}


def send(channel: Channel, message: Message) -> None:
    """Deliver, or raise NotDelivered."""
    module = importlib.import_module(f"stackctl.health.notify.{_MODULES[channel.type]}")
    module.send(channel, message)
