"""Plans for tests, made the way the product makes them: through the validated configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stackctl.config import StackConfig
from stackctl.health.plan import Channel, Notify, Ping, Plan, decode, dump


def plan(**values: Any) -> Plan:
    config = StackConfig.model_validate({"name": "test", **values})
    return decode(Plan, dump(config, Path("/nowhere/stack.yaml")))


def ping(**values: Any) -> Ping:
    found = plan(health={"ping": values}).health.ping
    assert found is not None
    return found


def notify(*channels: dict[str, Any], **values: Any) -> Notify:
    return plan(notify={"channels": list(channels), **values}).notify


def channel(**values: Any) -> Channel:
    return notify(values).channels[0]
