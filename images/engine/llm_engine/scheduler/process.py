"""The server's end of a runner: start it, talk to it, notice when it dies.

One `RunnerProcess` is one child process with one loaded model. All methods belong to the event loop that
started it. Guarantees: a request's iterator always ends, with `Done` for each answer or one `Failed`; closing
it early cancels the request; when the child dies, every open request fails with a text that says how, and
`exited` tells why; one that no longer works for those who wait is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from llm_engine.runner import protocol
from llm_engine.runner.messages import (
    Done,
    EmbedRequest,
    EmbedResult,
    Event,
    Failed,
    GenerateRequest,
    LoadSpec,
    Media,
    RerankRequest,
    RerankResult,
    RunnerInfo,
    Stats,
)
from llm_engine.runner.protocol import Splitter, encode
from llm_engine.scheduler.devices import ENVIRONMENT
from llm_engine.scheduler.heartbeat import BEAT_SECONDS, Heartbeat
from llm_engine.scheduler.lastlines import LastLines

# Behind an assertion llama.cpp would print its stack, or what a debugger makes of it, which is many lines and
# tells nobody anything.
_ENVIRONMENT = {**ENVIRONMENT, "GGML_NO_BACKTRACE": "1"}
MEDIA_STEP = 1 << 20
_STOP_TIMEOUT = 5.0
Prompt = str | Sequence[int] | Sequence[str | Media]


class LoadFailed(Exception):
    """The model could not be loaded; the text is for the person who asked."""


class LoadDied(LoadFailed):
    """The runner ended over it."""

    def __init__(self, text: str, last_lines: tuple[str, ...]) -> None:
        super().__init__(text)
        self.last_lines = last_lines


class RunnerError(Exception):
    """A request failed; `kind` is one of `messages.Failed.kind`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True)
class Exit:
    """Why a runner is gone."""

    returncode: int
    reason: str
    expected: bool
    last_lines: tuple[str, ...]


def describe_exit(returncode: int) -> str:
    """A process's end in words, with the usual cause where the signal tells it."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = {"SIGKILL": " (out of memory?)", "SIGABRT": " (assertion failed)"}.get(name, "")
    return f"killed by {name}{hint}"


class RunnerProcess:
    """See the module. Made by `start` alone."""

    def __init__(self, spec: LoadSpec, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self.spec = spec
        self.info: RunnerInfo
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._process = process
        self._socket = sock
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._lines = LastLines()
        self._next_id = 1
        self._streams: dict[int, asyncio.Queue[Event]] = {}
        self._owed: dict[int, int] = {}
        """Answers by request that it has not ended yet; whether anybody reads them is not its fault."""
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._loaded: asyncio.Future[RunnerInfo] = asyncio.get_running_loop().create_future()
        self._on_progress: Callable[[float], None] | None = None
        self._stopping = False
        self._verdict = ""
        """Why we ended it, where we did."""
        self._owes = asyncio.Event()
        self._heart: Heartbeat | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        spec: LoadSpec,
        on_progress: Callable[[float], None] | None = None,
        *,
        env: dict[str, str] | None = None,
    ) -> RunnerProcess:
        """Load a model in a new process. Cancelling this call ends the process: that is how a load is
        abandoned.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "llm_engine.runner",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env={**_ENVIRONMENT, **os.environ, **(env or {})},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        runner = cls(spec, process, ours)
        runner._on_progress = on_progress
        try:
            await runner._open()
            runner.info = await runner._loaded
            runner._tasks.append(asyncio.create_task(runner._watch()))
        except BaseException:
            await asyncio.shield(runner._abandon())
            raise
        return runner

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=1 << 22)
        self._tasks = [
            asyncio.create_task(self._read_frames()),
            asyncio.create_task(self._read_errors()),
            asyncio.create_task(self._wait()),
        ]
        self._send("load", 0, self.spec)

    async def _abandon(self) -> None:
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        else:
            await self._process.wait()
            self._socket.close()
        if self._loaded.done() and not self._loaded.cancelled():
            self._loaded.exception()  # it was raised to the caller of `start`, or nobody waits any more

    # What comes from the child

    async def _read_frames(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await self._read()
        except Exception as error:  # noqa: BLE001 - whatever it was that it said, nobody reads on
            self._end(f"it broke the protocol: {type(error).__name__}: {error}")
        # One that has closed its end has nothing more to say, and should have gone.
        asyncio.get_running_loop().call_later(_STOP_TIMEOUT, self._end, "it closed its connection")

    async def _read(self) -> None:
        splitter = Splitter()
        while data := await self._reader.read(1 << 20):
            if self._heart is not None:
                self._heart.heard()
            for kind, request_id, payload in splitter.feed(data):
                self._receive(kind, request_id, payload)

    def _receive(self, kind: str, request_id: int, payload: Any) -> None:
        if kind == "turn":
            for item in payload:
                stream = self._streams.get(item[0])
                if stream is not None:
                    event = protocol.event(item)
                    self._paid(item[0], event)
                    stream.put_nowait(event)
                elif item[1] == protocol.FAILED and item[0] in self._replies:
                    self._reply_error(item[0], RunnerError(item[2], item[3]))
        elif kind == "reply":
            reply = self._replies.pop(request_id, None)
            if reply is not None and not reply.done():
                reply.set_result(payload)
        elif kind == "pulse":
            if self._heart is not None:
                self._heart.felt(int(payload))
        elif kind == "progress":
            if self._on_progress is not None:
                self._on_progress(float(payload))
        elif kind == "ready":
            if not self._loaded.done():
                self._lines.works()
                self._loaded.set_result(RunnerInfo(**payload))
        elif kind == "load_failed":
            self._fail_load(LoadFailed(str(payload)))
        elif kind == "hello" and payload["version"] != protocol.VERSION:
            self._fail_load(
                LoadFailed(f"the runner speaks protocol {payload['version']}, this server {protocol.VERSION}")
            )

    def _fail_load(self, error: LoadFailed) -> None:
        if not self._loaded.done():
            self._loaded.set_exception(error)

    def _reply_error(self, request_id: int, error: RunnerError) -> None:
        reply = self._replies.pop(request_id, None)
        if reply is not None and not reply.done():
            reply.set_exception(error)

    async def _read_errors(self) -> None:
        """Keep the last lines of what llama.cpp prints: after a crash they say why."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line longer than the limit; what follows it is still of use
                continue
            if not line:
                return
            self._lines.add(line.decode("utf-8", "replace").rstrip())

    async def _watch(self) -> None:
        """Ends a runner that somebody waits for in vain; sleeps while nobody waits."""
        whole = self.info.size_vram > 0.8 * self.info.size
        heart = self._heart = Heartbeat(self._processor_time, on_gpu=whole)
        while self.alive:
            await self._owes.wait()
            heart.begin()
            while self.owes:
                self._send("ping", 0)
                await asyncio.sleep(BEAT_SECONDS)
                if self.owes and (why := heart.beat()):
                    self._end(why)
                    return
            self._owes.clear()

    @property
    def owes(self) -> bool:
        """Whether it has work for anybody."""
        return bool(self._owed or self._replies)

    def _paid(self, request_id: int, event: Event) -> None:
        if isinstance(event, Done) and self._owed.get(request_id, 0) > 1:
            self._owed[request_id] -= 1
        elif isinstance(event, Done | Failed):
            self._owed.pop(request_id, None)

    def _processor_time(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _end(self, why: str) -> None:
        """Kills it, for a reason that those who wait are told."""
        if self.alive and not self._stopping:
            self._verdict = self._verdict or why
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _wait(self) -> None:
        returncode = await self._process.wait()
        # The pipes may hold more than has been read: what the child said last is what matters.
        await asyncio.wait(self._tasks[:2], timeout=2)
        self._gone(returncode)

    def _gone(self, returncode: int) -> None:
        last = self._lines.all
        for task in self._tasks[3:]:
            task.cancel()
        reason = f"ended because {self._verdict}" if self._verdict else describe_exit(returncode)
        exit_ = Exit(returncode, reason, self._stopping and returncode <= 0, last)
        said = self._lines.why() if not self._verdict else ""
        text = f"the model runner has terminated: {exit_.reason}" + (f": {said}" if said else "")
        self._fail_load(LoadDied(text, last))
        for stream in self._streams.values():
            stream.put_nowait(Failed("crashed", text))
        for request_id in list(self._replies):
            self._reply_error(request_id, RunnerError("crashed", text))
        self._writer.close()
        if not self.exited.done():
            self.exited.set_result(exit_)

    # What goes to the child

    async def _send_media(self, request_id: int, prompt: Prompt) -> Prompt:
        """Images and sounds go ahead in pieces: as one message, a large one would take this thread a tenth of
        a second, in which nobody is served. What is left of them in the prompt says where they belong."""
        if isinstance(prompt, str) or not any(isinstance(part, Media) for part in prompt):
            return prompt
        for place, part in enumerate(prompt):
            if not isinstance(part, Media):
                continue
            for at in range(0, len(part.data), MEDIA_STEP):
                self._send("media", request_id, (place, part.data[at : at + MEDIA_STEP]))
                await self._writer.drain()
                await asyncio.sleep(0)
        left: list[Any] = [Media(b"") if isinstance(part, Media) else part for part in prompt]
        return left

    def _send(self, kind: str, request_id: int, payload: object = None) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(kind, request_id, payload))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    @property
    def alive(self) -> bool:
        return not self.exited.done()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_lines(self) -> tuple[str, ...]:
        return self._lines.all

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """The events of one request. Ends after `Done` of every answer, or after one `Failed`.

        Use it with `contextlib.aclosing`: leaving the iterator early cancels the request within one turn.
        """
        request_id = self._new_id()
        stream: asyncio.Queue[Event] = asyncio.Queue()
        self._streams[request_id] = stream
        left = self._owed[request_id] = max(1, request.n)
        self._owes.set()
        over = False
        try:
            if not self.alive:
                yield Failed("crashed", f"the model runner has terminated: {self.exited.result().reason}")
                return
            prompt = await self._send_media(request_id, request.prompt)
            self._send("generate", request_id, replace(request, prompt=prompt))
            await self._writer.drain()
            while left:
                event = await stream.get()
                if isinstance(event, Done):
                    left -= 1
                elif isinstance(event, Failed):
                    left = 0
                over = left == 0
                yield event
        except ConnectionError:
            over = True
            exit_ = await asyncio.shield(self.exited)
            yield Failed("crashed", f"the model runner has terminated: {exit_.reason}")
        finally:
            del self._streams[request_id]
            self._owed.pop(request_id, None)
            if not over:
                self._send("cancel", request_id)

    async def _ask(self, kind: str, payload: object = None) -> Any:
        if not self.alive:
            raise RunnerError("crashed", f"the model runner has terminated: {self.exited.result().reason}")
        request_id = self._new_id()
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        self._owes.set()
        try:
            self._send(kind, request_id, payload)
            return await reply
        finally:
            if self._replies.pop(request_id, None) is not None:
                self._send("cancel", request_id)

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        payload = {"text": text, "add_special": add_special, "parse_special": parse_special}
        # Bytes: as a list of numbers, the tokens of a long text would take longer to read than to make.
        raw: bytes = await self._ask("tokenize", payload)
        ids = array("i", raw)
        return ids.tolist()

    async def detokenize(self, ids: Sequence[int]) -> str:
        raw: bytes = await self._ask("detokenize", list(ids))
        return raw.decode("utf-8", "replace")

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        return EmbedResult(**await self._ask("embed", request))

    async def rerank(self, request: RerankRequest) -> RerankResult:
        return RerankResult(**await self._ask("rerank", request))

    async def stats(self) -> Stats:
        return Stats(**await self._ask("stats"))

    async def unpark(self, size: int) -> int:
        """Have the runner give back main memory that idle prefixes take; how many bytes it was."""
        freed: int = await self._ask("unpark", size)
        return freed

    async def stop(self, grace: float = _STOP_TIMEOUT) -> Exit:
        """Ask the runner to end, and see to it. Safe to call twice, and after a crash."""
        self._stopping = True
        self._send("stop", 0)
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        return await asyncio.shield(self.exited)
