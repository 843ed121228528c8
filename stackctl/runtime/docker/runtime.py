"""The Docker runtime behind the common interface. Beside containers of another's project of the same name
nothing is started or removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import yaml

from stackctl.config import StackConfig
from stackctl.errors import StackctlError
from stackctl.runtime.base import LogLine, Progress, ServiceStatus, StackStatus
from stackctl.runtime.command import CommandResult, clean_environment, interactive, run
from stackctl.runtime.docker import compose, endpoint, inspecting, project
from stackctl.runtime.docker.endings import Endings
from stackctl.runtime.docker.logs import answering, read_logs
from stackctl.runtime.generations import Generation, GenerationStore

_ASIDE = re.compile(r"^[0-9a-f]{12}_")


class DockerRuntime:
    name = "docker"

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.stack = config.name
        self.store = GenerationStore(config.name)
        self._endings = Endings(config.name)
        self._before: dict[str, int] | None = None

    def up(
        self, generation: Generation, services: Sequence[str] | None = None, progress: Progress | None = None
    ) -> None:
        project.refuse_strangers(self.stack, self.stack)
        self._watch_anew()
        self._clear_half_recreated()
        arguments = compose.up_arguments(services)
        compose.compose(self.stack, generation.file, *arguments, on_line=progress)

    def watch(self) -> Mapping[str, int]:
        if self._before is None:
            self._watch_anew()
        return dict(self._before or {})

    def _watch_anew(self, *starting: str) -> None:
        """One that is started by hand counts its restarts from nothing again."""
        self._endings.watch()
        self._before = {
            one.id: int(one.attrs.get("RestartCount", 0))
            for one in self.containers()
            if one.status in ("running", "restarting") and _service(one) not in starting
        }

    def _clear_half_recreated(self) -> None:
        """What compose leaves when it is cut off while it recreates: the old container under an aside name.
        With it there, the next `up` fails on that name."""
        for container in self.containers():
            if _ASIDE.match(container.name):
                run(["docker", "rm", "--force", container.id], timeout=60, check=False)

    def down(self, volumes: bool = False) -> None:
        """By project name, so that it works with no generation left.

        Compose's own `--volumes` takes every volume of the project's name, also another's; ours have none but
        those that an image asks for.
        """
        project.refuse_strangers(self.stack, self.stack)
        unnamed = [
            mount["Name"]
            for one in (self.containers() if volumes else [])
            for mount in one.attrs.get("Mounts", [])
            if mount.get("Type") == "volume"
        ]
        arguments = ["docker", "compose", "--ansi", "never", "--progress", "plain", "-p", self.stack, "down"]
        run([*arguments, "--remove-orphans"], timeout=300)
        if unnamed:
            run(["docker", "volume", "rm", *unnamed], timeout=60)

    def restart(self, services: Sequence[str]) -> None:
        self._watch_anew(*services)
        self._compose("restart", *services)

    def stop(self, services: Sequence[str]) -> None:
        self._compose("stop", *services)

    def start(self, services: Sequence[str]) -> None:
        self._watch_anew(*services)
        self._compose("start", *services)

    def status(self) -> StackStatus:
        current = self.store.current()
        found = {}
        everything = self._of_project()
        others = [one.name for one in everything if not project.is_ours(_labels(one), self.stack)]
        for container in filter(self._is_service, everything):
            attributes = container.attrs
            ending = self._endings.last(container.id, inspecting.finished(attributes))
            one = inspecting.service_status(attributes, ending, *self._usage(container))
            found[one.name] = one
        rendered = self._rendered(current)
        services = [
            found.get(name) or ServiceStatus(name, "absent", image=image) for name, image in rendered.items()
        ]
        services += [one for name, one in found.items() if name not in rendered]
        number = current.number if current else None
        drift = [
            *self._drift(current, found),
            *(f"{name}: not of this stack, but in its project" for name in others),
        ]
        return StackStatus(self.stack, self.name, number, tuple(services), tuple(drift))

    def containers(self) -> list[Any]:
        return [one for one in self._of_project() if self._is_service(one)]

    def _is_service(self, container: Any) -> bool:
        labels = _labels(container)
        return project.is_ours(labels, self.stack) and labels.get("com.docker.compose.oneoff") != "True"

    def _of_project(self) -> list[Any]:
        """One that is removed while we look is left out; an engine that stops answering is an error of
        ours."""
        label = {"label": f"{project.PROJECT}={self.stack}"}
        with answering():
            found: list[Any] = self._client.containers.list(all=True, filters=label, ignore_removed=True)
        return found

    def logs(
        self,
        services: Sequence[str] | None = None,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        containers = [(_service(one), one) for one in self.containers()]
        wanted = [(name, one) for name, one in containers if not services or name in services]
        return read_logs(wanted, tail=tail, since=since, follow=follow)

    def exec(
        self,
        service: str,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        input: str | None = None,
        check: bool = False,
    ) -> CommandResult:
        command = [
            "docker",
            "exec",
            *(["-i"] if input is not None else []),
            self._container(service).id,
            *argv,
        ]
        return run(command, timeout=timeout, input=input, check=check)

    def exec_interactive(self, service: str, argv: Sequence[str]) -> int:
        import sys

        terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        command = ["docker", "exec", "-i", *terminal, self._container(service).id, *argv]
        return interactive(command, clean_environment())

    def inspect(self, service: str) -> dict[str, Any]:
        for one in self.containers():
            if _service(one) == service:
                attributes: dict[str, Any] = one.attrs
                return attributes
        return {}

    @cached_property
    def _client(self) -> Any:
        import docker

        engine = endpoint.resolve()
        try:
            return docker.from_env(timeout=30, environment=engine.environment())
        except docker.errors.DockerException as error:
            raise StackctlError(
                f"no Docker Engine answers at {engine.host} ({engine.source}): {error}",
                fix="stackctl doctor --only docker",
            ) from error

    def _compose(self, *arguments: str) -> None:
        current = self.store.current()
        if current is None:
            raise StackctlError(f"stack {self.stack} was not brought up", fix="stackctl up")
        compose.compose(self.stack, current.file, *arguments)

    def _container(self, service: str) -> Any:
        for one in self.containers():
            if (
                one.attrs["Config"]["Labels"].get("com.docker.compose.service") == service
                and one.status == "running"
            ):
                return one
        raise StackctlError(f"service {service} is not running", fix="stackctl up")

    def _usage(self, container: Any) -> tuple[int | None, float | None]:
        """Memory in bytes, and seconds of CPU since the start."""
        if container.status != "running":
            return None, None
        try:
            found = container.stats(stream=False, one_shot=True)
            usage, cpu = found["memory_stats"], found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        except Exception:  # noqa: BLE001 - a container that ends while we look uses nothing
            return None, None
        stats = usage.get("stats", {})
        cache = stats.get("inactive_file", stats.get("total_inactive_file", 0))  # as `docker stats` counts
        return max(0, usage.get("usage", 0) - cache) or None, cpu

    def _rendered(self, generation: Generation | None) -> dict[str, str]:
        if generation is None or generation.runtime != self.name:
            return {}
        document = yaml.load(
            generation.file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        return {name: body["image"] for name, body in document["services"].items()}

    def _drift(self, current: Generation | None, found: dict[str, ServiceStatus]) -> list[str]:
        if current is None or current.runtime != self.name:
            return [f"{name}: running, but no generation is in force" for name in found]
        expected = compose.hashes(self.stack, current)
        if any(one.config_hash != expected.get(name) for name, one in found.items()):
            expected = compose.hashes(self.stack, current, anew=True)
        lines = [f"{name}: rendered, but there is no container" for name in expected if name not in found]
        lines += [f"{name}: running, but not in the rendered stack" for name in found if name not in expected]
        for name, one in found.items():
            if name in expected and one.config_hash != expected[name]:
                lines.append(f"{name}: runs with other settings than rendered")
            if name in expected and one.state != "running":
                lines.append(f"{name}: {one.state}, should be running")
        return lines


def _labels(container: Any) -> dict[str, str]:
    return container.attrs["Config"]["Labels"] or {}


def _service(container: Any) -> str:
    return _labels(container).get("com.docker.compose.service", str(container.name))
