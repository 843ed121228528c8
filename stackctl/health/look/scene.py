"""Everything the checks of one run look at, each part fetched at most once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackctl.health.http import HttpError, Reply, request
from stackctl.health.look.memo import Memo
from stackctl.health.look.metrics import Samples, parse
from stackctl.health.look.runtime import RuntimeView
from stackctl.health.plan import Plan
from stackctl.runtime.base import ServiceStatus, StackStatus
from stackctl.runtime.command import CommandResult
from stackctl.runtime.generations import Generation, GenerationStore

_TIMEOUT = 5.0


class Scene:
    def __init__(self, plan: Plan, runtime: RuntimeView) -> None:
        self.plan = plan
        self.runtime = runtime
        self.undelivered: tuple[str, ...] = ()
        self.status = Memo[StackStatus](runtime.status)
        self.tags = Memo[list[dict[str, Any]]](lambda: self._models("/api/tags"))
        self.ps = Memo[list[dict[str, Any]]](lambda: self._models("/api/ps"))
        self.metrics = Memo[Samples](self._metrics)
        self.generation = Memo[Generation | None](lambda: GenerationStore(plan.stack).current())
        self.taken_down = Memo[bool](self._taken_down)

    def service(self, name: str) -> ServiceStatus:
        return self.status().service(name)

    def exec(self, service: str, argv: Sequence[str], *, timeout: float) -> CommandResult:
        return self.runtime.exec(service, argv, timeout=timeout)

    def ask(
        self,
        service: str,
        path: str,
        *,
        timeout: float,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Reply:
        """One exchange with a service through its published port."""
        found = self.plan.service(service)
        if found is None:
            raise HttpError(f"{service} is not part of this stack")
        headers = {"Content-Type": "application/json"} if body else {}
        return request(method, found.url + path, timeout=timeout, body=body, headers=headers)

    def _taken_down(self) -> bool:
        """It was up, and `stackctl down` ended that: what is away is away because somebody wanted it."""
        store = GenerationStore(self.plan.stack)
        return self.generation() is None and (store.taken_down() or store.previous()) is not None

    def _models(self, path: str) -> list[dict[str, Any]]:
        reply = self.ask("engine", path, timeout=_TIMEOUT)
        if reply.status != 200:
            raise HttpError(_refused(path, reply))
        models = reply.json().get("models")
        return models if isinstance(models, list) else []

    def _metrics(self) -> Samples:
        reply = self.ask("engine", "/metrics", timeout=_TIMEOUT)
        if reply.status != 200:
            raise HttpError(_refused("/metrics", reply))
        return parse(reply.text)


def _refused(path: str, reply: Reply) -> str:
    return f"{path} answered {reply.status}: {' '.join(reply.text.split())[:80]}"
