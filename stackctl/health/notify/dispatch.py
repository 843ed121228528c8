"""Decides what is sent now, what waits for the digest, and keeps at it until a channel took it.

- a change is written to the state file before it is sent and struck out after: a crash in between repeats
  one message at worst, and loses none;
- at most `rate_limit.messages` go out per `rate_limit.per`; what is over is held and comes as one digest;
- several changes in one run come as one digest, too;
- a channel that fails is tried again at the next runs for a day, without delaying the others;
- a channel hears of a check in the order of events: after a failure nothing later of the same check is sent
  to it, and what waits for it becomes one message with the last word.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stackctl.health.model import Status, badness
from stackctl.health.moment import Moment
from stackctl.health.notify.message import Message, digest
from stackctl.health.plan import Channel, Notify
from stackctl.health.state import Memory

_MOST_AT_ONCE = 3
_GIVE_UP = 86400.0


class NotDelivered(Exception):
    """A channel did not take the message; the text says why."""


Send = Callable[[Channel, Message], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What happened to one message on one channel."""

    channel: str
    subject: str
    problem: str | None
    id: str = ""


def queue_up(memory: Memory, messages: list[Message], config: Notify, now: Moment) -> None:
    """Move new and held messages to the outbox as far as the rate limit lets them."""
    if not config.channels:
        memory.held.clear()
        return
    memory.sent = [at for at in memory.sent if (now.since(at) or 0.0) < config.rate_limit.per]
    room = config.rate_limit.messages - len(memory.sent)
    waiting = [*(Message.load(data) for data in memory.held), *messages]
    if not waiting:
        return
    if room <= 0:
        memory.held = [part.dump() for part in _merged(waiting)]
        return
    one_by_one = not memory.held and len(waiting) <= min(room, _MOST_AT_ONCE)
    leaving = waiting if one_by_one else [digest(waiting)] if len(waiting) > 1 else waiting
    memory.held = []
    for message in leaving:
        labels = [label for label, channel in _labelled(config) if _carries(channel, message)]
        for label in labels:
            _append(memory, label, message, now)
        if labels:
            memory.sent.append(now)


def _append(memory: Memory, label: str, message: Message, now: Moment) -> None:
    """Behind what waits for the channel; with what is older of the same checks it becomes one message."""
    older = [entry for entry in memory.outbox if label in entry["to"] and _shares(entry, message)]
    since = now.dump()
    if older:
        waiting = [Message.load(entry["message"]) for entry in older]
        for entry in older:
            entry["to"].remove(label)
        merged = digest([*waiting, message])
        message = merged if len(merged.parts) > 1 else merged.parts[0]
    memory.outbox = [entry for entry in memory.outbox if entry["to"]]
    memory.outbox.append({"id": uuid.uuid4().hex, "message": message.dump(), "to": [label], "since": since})


def _shares(entry: dict[str, Any], message: Message) -> bool:
    return bool(_checks(Message.load(entry["message"])) & _checks(message))


def _checks(message: Message) -> set[str]:
    return {part.check for part in message.parts or (message,)}


def _merged(waiting: list[Message]) -> list[Message]:
    """What is held stays as small as the number of checks, however long it is held."""
    return list(digest(waiting).parts)


def deliver(memory: Memory, config: Notify, send: Send, now: Moment) -> list[Delivery]:
    """Try every channel of every waiting message, channels side by side; what fails stays in the outbox."""
    channels = dict(_labelled(config))
    deliveries: list[Delivery] = []
    lanes: dict[str, list[dict[str, Any]]] = {}
    for entry in memory.outbox:
        entry.setdefault("id", uuid.uuid4().hex)
        entry["to"] = [label for label in entry["to"] if label in channels]
        for label in entry["to"]:
            lanes.setdefault(label, []).append(entry)
    threads = []
    for label, entries in lanes.items():
        args = (channels[label], label, entries, send, deliveries)
        threads.append(threading.Thread(target=_lane, args=args, daemon=True))
        threads[-1].start()
    for thread, label in zip(threads, lanes, strict=True):
        thread.join(channels[label].timeout * len(lanes[label]) + 1)
    done = list(deliveries)
    taken = {(delivery.channel, delivery.id) for delivery in done if delivery.problem is None}
    for entry in memory.outbox:
        entry["to"] = [label for label in entry["to"] if (label, entry["id"]) not in taken]
    memory.outbox = [entry for entry in memory.outbox if entry["to"] and not _too_old(entry, now)]
    return done


def _lane(
    channel: Channel, label: str, entries: list[dict[str, Any]], send: Send, deliveries: list[Delivery]
) -> None:
    refused: set[str] = set()
    for entry in list(entries):
        message = Message.load(entry["message"])
        if refused & _checks(message):
            refused |= _checks(message)
            continue
        deadline = time.monotonic() + channel.timeout
        try:
            send(channel, message)
            deliveries.append(Delivery(label, message.subject, None, entry["id"]))
        except Exception as error:  # noqa: BLE001 - whatever a channel raises must not end its lane
            refused |= _checks(message)
            text = str(error) if isinstance(error, NotDelivered) else f"{type(error).__name__}: {error}"
            deliveries.append(Delivery(label, message.subject, text, entry["id"]))
            if time.monotonic() >= deadline:
                # A dead channel must cost its time limit once per run, not once per message.
                return


def _labelled(config: Notify) -> list[tuple[str, Channel]]:
    """Labels are unique, so that a retry reaches the right one of two channels of a kind."""
    seen: dict[str, int] = {}
    labelled = []
    for channel in config.channels:
        count = seen[channel.label] = seen.get(channel.label, 0) + 1
        labelled.append((channel.label if count == 1 else f"{channel.label}-{count}", channel))
    return labelled


def _carries(channel: Channel, message: Message) -> bool:
    return message.weight >= badness(Status[channel.min_severity.upper()])


def _too_old(entry: dict[str, Any], now: Moment) -> bool:
    elapsed = now.since(Moment.load(entry["since"]))
    return elapsed is not None and elapsed > _GIVE_UP
