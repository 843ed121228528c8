"""The process that keeps a local stack up: `python -m stackctl.runtime.local.supervisor STATE_DIR`.

It owns the services; stackctl talks to it over a Unix socket in the state folder, one JSON object a line each
way. `apply` makes the services match a generation: unchanged ones are not touched, by the hash of what they
run with. When it is killed, the kernel ends its services (see `service`), and the next start cleans up what
they left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from stackctl.runtime.local import cpus
from stackctl.runtime.local.address import socket_path
from stackctl.runtime.local.children import Children, introduce
from stackctl.runtime.local.logs import RotatingLog
from stackctl.runtime.local.service import Service


class Supervisor:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.services: dict[str, Service] = {}
        self.generation: int | None = None
        self.ended = asyncio.Event()
        self._changing = asyncio.Lock()
        self._children = Children(state)

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request["op"]
        if operation == "status":
            return {
                "generation": self.generation,
                "pid": os.getpid(),
                "services": [service.report() for service in self.services.values()],
            }
        async with self._changing:
            if operation == "apply":
                await self.apply(Path(request["file"]), int(request["generation"]), request.get("services"))
            elif operation == "restart":
                await self._each(request["services"], self._restart)
            elif operation == "stop":
                await self._each(request["services"], self._stop)
            elif operation == "start":
                for name in request["services"]:
                    self.services[name].start()
            elif operation == "shutdown":
                await self.shutdown()
            else:
                raise ValueError(f"unknown operation {operation}")
            self.remember()
        return {}

    async def apply(self, file: Path, generation: int, only: list[str] | None) -> None:
        wanted = json.loads(await asyncio.to_thread(file.read_text))["services"]
        if only is None:
            gone = [name for name in self.services if name not in wanted]
            await self._each(gone, self._stop)
            for name in gone:
                del self.services[name]
            self.generation = generation
        changed = [
            name
            for name, spec in wanted.items()
            if (only is None or name in only)
            and (name not in self.services or self.services[name].spec["hash"] != spec["hash"])
        ]
        await self._each([name for name in changed if name in self.services], self._stop)
        for name, spec in wanted.items():
            if only is not None and name not in only:
                continue
            if name in changed:
                log = RotatingLog(self.state / "logs" / f"{name}.log")
                self.services[name] = Service(
                    name, spec, file.parent, self.state / "secrets", log, self._cpus
                )
            self.services[name].start()

    async def _each(self, names: list[str], action: Any) -> None:
        await asyncio.gather(*(action(name) for name in names if name in self.services))

    async def _stop(self, name: str) -> None:
        await self.services[name].stop()

    async def _restart(self, name: str) -> None:
        await self._stop(name)
        self.services[name].start()

    async def shutdown(self) -> None:
        await self._each(list(self.services), self._stop)
        self.ended.set()

    def remember(self) -> None:
        """Who our children are, for the next supervisor, should we be killed."""
        self._children.remember(
            (service.name, service.pid) for service in self.services.values() if service.pid
        )

    def _cpus(self, limit: float) -> frozenset[int]:
        return cpus.pick(limit, [one.cpus for one in self.services.values()])


async def _serve(state: Path) -> None:
    Children(state).end()
    supervisor = Supervisor(state)
    introduce(state)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            try:
                answer = await supervisor.handle(json.loads(line))
            except Exception as error:  # noqa: BLE001 - told to the caller; the services must live on
                answer = {"error": f"{type(error).__name__}: {error}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            with contextlib.suppress(ConnectionError):  # the asker gave up
                await writer.drain()
        finally:
            writer.close()

    async def note_children() -> None:
        while True:
            await asyncio.sleep(1)
            supervisor.remember()

    path = socket_path(state)
    path.unlink(missing_ok=True)
    old = os.umask(0o177)
    # Answers hold a stack's settings: large, but bounded.
    server = await asyncio.start_unix_server(client, path, limit=1 << 20)
    os.umask(old)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: asyncio.ensure_future(supervisor.shutdown()))
    notes = asyncio.create_task(note_children())
    try:
        await supervisor.ended.wait()
        await asyncio.sleep(0.05)  # let the last answer out
    finally:
        notes.cancel()
        server.close()
        path.unlink(missing_ok=True)


def main() -> None:
    import fcntl

    state = Path(sys.argv[1])
    lock = (state / "supervisor.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another supervisor has this stack")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(state))


if __name__ == "__main__":
    main()
