"""A server that does not read: the turns go on, nobody new is admitted while it is far behind, and all that
was said is there when it reads again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_engine.runner import protocol
from llm_engine.runner.branch import State
from llm_engine.runner.messages import GenerateRequest, SamplingParams
from llm_engine.runner.service import BACKLOG, Writer

from tests.engine.runner.inprocess import InProcess

SAMPLING = SamplingParams(temperature=0, ignore_eos=True)
COUNT = 40


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(60)
        yield ours, theirs


def read(sock: socket.socket, until: int) -> list[protocol.Frame]:
    """Frames until one that ends the request `until`."""
    splitter = protocol.Splitter()
    frames: list[protocol.Frame] = []
    while True:
        for kind, request_id, payload in splitter.feed(sock.recv(1 << 20)):
            frames.append((kind, request_id, payload))
            if kind == "turn" and any(item[:2] == [until, protocol.DONE] for item in payload):
                return frames


def in_time(work: threading.Thread) -> None:
    work.start()
    work.join(60)
    assert not work.is_alive(), "it waits for a server that does not read"


def test_turns_go_on_and_newcomers_wait(
    random_model: Path, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    writer = Writer(ours)
    bench = InProcess(random_model, to=writer)
    loop = bench.loop

    def turns(count: int) -> None:
        def take() -> None:
            for _ in range(count):
                bench.machine.turn()

        in_time(threading.Thread(target=take, daemon=True))

    bench.submit(1, GenerateRequest("first", max_tokens=COUNT, sampling=SAMPLING, echo_tokens=True))
    turns(2)
    assert [branch.request_id for branch in loop.running] == [1]
    filler = protocol.encode("reply", 99, b"\0" * BACKLOG)
    assert not writer.behind
    in_time(threading.Thread(target=writer.send, args=(filler,), daemon=True))
    assert writer.behind, "more than the socket's buffer and the backlog, of which nothing is read"
    bench.submit(2, GenerateRequest("second", max_tokens=COUNT, sampling=SAMPLING, echo_tokens=True))
    before = loop.counters.generated_tokens
    turns(8)
    assert loop.counters.generated_tokens - before >= 8
    assert [branch.state for branch in loop.queue.waiting] == [State.WAITING]

    reading = threading.Thread(target=lambda: frames.extend(read(theirs, until=2)), daemon=True)
    frames: list[protocol.Frame] = []
    reading.start()
    # What is behind shrinks by whole frames: when the large one is read, newcomers are let in.
    while writer.behind and reading.is_alive():
        time.sleep(0.001)
    turns(COUNT + 8)
    reading.join(60)
    assert not reading.is_alive()
    said: dict[int, int] = {}
    for kind, _, payload in frames:
        for item in payload if kind == "turn" else ():
            if item[1] == protocol.TOKENS:
                said[item[0]] = said.get(item[0], 0) + len(item[4])
    assert said == {1: COUNT, 2: COUNT}
    assert [request_id for kind, request_id, _ in frames if kind == "reply"] == [99]
    writer.close()
    bench.machine.model.free()
