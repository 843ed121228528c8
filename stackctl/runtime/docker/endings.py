"""How containers ended, noted while it happens.

Docker forgets: a container that runs again shows exit code 0, and not that it was killed at its memory limit
a moment ago. Its events tell both, but it keeps few of them, and every health check makes three. So they are
listened to from before a change until its outcome is known, and a container that was restarted in between is
still told of rightly.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stackctl.errors import StackctlError
from stackctl.runtime.docker import endpoint

KILLED = 137
LATE = 2.0  # an event may come this much after the container is seen to run again
_ROUNDING = timedelta(seconds=0.5)


@dataclass(frozen=True)
class Ending:
    at: datetime
    exit_code: int
    at_memory_limit: bool


class Endings:
    def __init__(self, project: str) -> None:
        self._project = project
        self._seen: dict[str, Ending] = {}
        self._over_limit: set[str] = set()
        self._news = threading.Condition()
        self._listening = False
        self._since = datetime.max.replace(tzinfo=UTC)

    def watch(self) -> None:
        """Listen from now on; what can be listened to no longer is only less well told."""
        with self._news:
            if self._listening:
                return
            self._listening, self._since = True, datetime.now(UTC)
        threading.Thread(target=self._listen, name="endings", daemon=True).start()

    def last(self, container: str, finished: datetime | None) -> Ending | None:
        """The newest end of that container; `finished` is when Docker says that it ended, and is waited
        for."""
        with self._news:
            if finished is not None and finished >= self._since:
                self._news.wait_for(lambda: self._told(container, finished), LATE)
            return self._seen.get(container)

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            container, at = event["Actor"]["ID"], datetime.fromtimestamp(event["timeNano"] / 1e9, UTC)
            with self._news:
                if event["Action"] == "oom":
                    self._note_limit(container, at)
                else:
                    code = int(event["Actor"]["Attributes"].get("exitCode", 0))
                    self._seen[container] = Ending(at, code, container in self._over_limit)
                    self._over_limit.discard(container)
                self._news.notify_all()

    def _note_limit(self, container: str, at: datetime) -> None:
        """Which of both events comes first is the kernel's affair."""
        ended = self._seen.get(container)
        if ended and ended.exit_code == KILLED and at - ended.at < timedelta(seconds=LATE):
            self._seen[container] = replace(ended, at_memory_limit=True)
        else:
            self._over_limit.add(container)

    def _told(self, container: str, finished: datetime) -> bool:
        found = self._seen.get(container)
        return not self._listening or (found is not None and found.at >= finished - _ROUNDING)

    def _listen(self) -> None:
        import docker
        import requests

        wanted = {
            "type": "container",
            "event": ["die", "oom"],
            "label": f"com.docker.compose.project={self._project}",
        }
        try:
            environment = endpoint.resolve().environment()
            with contextlib.closing(docker.from_env(environment=environment)) as client:
                self.hear(client.events(since=int(time.time()) - 1, filters=wanted, decode=True))
        except (StackctlError, docker.errors.DockerException, requests.RequestException, OSError, ValueError):
            pass  # the engine was stopped, or its answer cut off: there is nothing more to hear
        finally:
            with self._news:
                self._listening = False
                self._news.notify_all()
