"""The pages of a stack, asked for through their published ports."""

from __future__ import annotations

import pytest

from stackctl.health.model import Status
from stackctl.health.plan import Plan
from stackctl.runtime.base import ServiceStatus
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import HostView, look
from tests.stackctl.health.support.servers import recording_server
from tests.support.ports import free_port


def with_webui(port: int) -> Plan:
    return plan(services={"webui": {"enabled": True, "port": port}})


@pytest.mark.parametrize(("answer", "expected"), [(200, Status.OK), (503, Status.CRITICAL)])
def test_what_the_page_answers_counts(answer: int, expected: Status) -> None:
    with recording_server() as server:
        server.answer = lambda seen: (answer, {}, b"{}")
        result = look(with_webui(int(server.url.rpartition(":")[2])), "webui")
        assert (result.status, result.summary) == (expected, f"/health answers {answer}")
        assert server.paths() == ["/health"]


@pytest.mark.parametrize(("health", "expected"), [("starting", Status.WARNING), ("healthy", Status.CRITICAL)])
def test_a_page_that_does_not_open_is_forgiven_while_it_starts(health: str, expected: Status) -> None:
    view = HostView(ServiceStatus("webui", "running", health))
    result = look(with_webui(free_port()), "webui", view=view)
    assert (result.status, "refused" in result.summary) == (expected, True)


def test_images_are_not_judged_where_nobody_can_be_asked() -> None:
    """The stack file of this plan does not exist, so `stackctl outdated` cannot say anything."""
    result = look(plan(health={"checks": {"images": {}}}), "images")
    assert result.skipped and "could not ask" in result.summary
