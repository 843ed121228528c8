"""Pings to a healthchecks-style service: what is sent, and that a dead service costs nothing."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest

from stackctl.health.model import Status
from stackctl.health.ping import Pinger
from tests.stackctl.health.support.plans import ping
from tests.stackctl.health.support.servers import recording_server


@pytest.mark.parametrize(
    ("status", "path"),
    [
        (Status.OK, "/uuid"),
        (Status.WARNING, "/uuid"),
        (Status.CRITICAL, "/uuid/fail"),
        (Status.UNKNOWN, "/uuid/fail"),
    ],
)
def test_start_and_end_carry_one_run_id(status: Status, path: str) -> None:
    with recording_server() as server:
        pinger = Pinger(ping(url=f"{server.url}/uuid"))
        pinger.start()
        pinger.finish(status, "secret model name")
    assert server.paths() == ["/uuid/start", path]
    ids = [parse_qs(urlsplit(seen.path).query)["rid"][0] for seen in server.seen]
    assert ids[0] == ids[1]
    assert [seen.body for seen in server.seen] == [b"", b""]
    assert pinger.problem is None


def test_exit_code_and_output_when_asked_for_cut_to_the_announced_limit() -> None:
    with recording_server() as server:
        server.answer = lambda seen: (200, {"Ping-Body-Limit": "10"}, b"OK")
        config = ping(url=f"{server.url}/uuid", exit_code=True, send_output=True)
        pinger = Pinger(config)
        pinger.start()
        pinger.finish(Status.CRITICAL, "0123456789ABCDEF")
    assert server.paths()[-1] == "/uuid/2"
    assert server.seen[-1].body == b"0123456789"


def test_a_service_that_hangs_costs_the_time_limit_and_no_more() -> None:
    with recording_server() as server:
        server.hang.set()
        pinger = Pinger(ping(url=server.url, timeout="500ms"))
        begun = time.monotonic()
        pinger.start()
        assert time.monotonic() - begun < 0.3
        pinger.finish(Status.OK, "")
        assert time.monotonic() - begun < 2
    assert pinger.problem


@pytest.mark.parametrize(
    ("answer", "problem"), [((404, b"not found"), "404"), ((200, b"OK (not found)"), "not found")]
)
def test_a_refused_ping_is_noted_and_fails_nothing(answer: tuple[int, bytes], problem: str) -> None:
    with recording_server() as server:
        server.answer = lambda seen: (answer[0], {}, answer[1])
        pinger = Pinger(ping(url=server.url, start=False))
        pinger.finish(Status.OK, "")
    assert pinger.problem is not None and problem in pinger.problem
    assert len(server.seen) == 1
