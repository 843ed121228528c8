"""What a failure is told by: the state, the health log and the last lines of each service that is not well.

Shown before anything is undone, and kept in a file, because undoing takes it away. Gathering it never fails:
an engine that has just misbehaved may well refuse to tell, and that must neither hide the failure nor keep
the old generation from being brought back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from stackctl.errors import StackctlError
from stackctl.operations.context import Say, Stack
from stackctl.redact import redacted
from stackctl.runtime.base import ServiceStatus

LINES = 20


def show_evidence(stack: Stack, error: StackctlError, services: tuple[str, ...]) -> None:
    with _kept(stack, error) as say:
        say(f"failed: {error.what}")
        for name, found in _services(stack, services, say):
            if found is not None and _well(found):
                continue
            if found is not None:
                say(f"--- {name}: {_state(found)}")
                for line in found.health_log[-3:]:
                    say(f"health | {line}")
            _logs(stack, name, say)


@contextlib.contextmanager
def _kept(stack: Stack, error: StackctlError) -> Iterator[Say]:
    """A way to say things that also writes them down, where that can be done."""
    path = stack.config.state_path / "last-failure.log"
    with contextlib.ExitStack() as exits:
        try:
            file = exits.enter_context(path.open("w", encoding="utf-8"))
            path.chmod(0o600)
        except OSError:
            yield stack.say
            return
        error.more = str(path)

        def say(text: str) -> None:
            stack.say(text)
            with contextlib.suppress(OSError):  # a full disk may be what the failure is about
                file.write(redacted(text) + "\n")
                file.flush()

        yield say


def _services(
    stack: Stack, services: tuple[str, ...], say: Say
) -> Iterator[tuple[str, ServiceStatus | None]]:
    """Each with its state; without one where the runtime does not tell it any more."""
    try:
        status = stack.runtime.status()
    except Exception as second:  # noqa: BLE001 - see above
        say(f"(the state of the services is not to be had: {_what(second)})")
        yield from ((name, None) for name in services)
        return
    yield from ((name, status.service(name)) for name in services)


def _well(found: ServiceStatus) -> bool:
    """One that was restarted may look well again just now: it is shown, too."""
    return found.state == "running" and found.health in ("healthy", "none") and not found.restarts


def _state(found: ServiceStatus) -> str:
    told = [found.state, found.health, f"restarts {found.restarts}"]
    if found.exit_code is not None:
        told.append(f"{'last ' if found.state == 'running' else ''}exit code {found.exit_code}")
    if found.oom_killed:
        told.append(f"killed at its memory limit of {found.memory_limit} bytes")
    return ", ".join(told)


def _logs(stack: Stack, name: str, say: Say) -> None:
    try:
        for entry in stack.runtime.logs([name], tail=LINES):
            say(f"{name} | {entry.text}")
    except Exception as second:  # noqa: BLE001 - see above
        say(f"(the log of {name} is not to be had: {_what(second)})")


def _what(error: Exception) -> str:
    return error.what if isinstance(error, StackctlError) else f"{type(error).__name__}: {error}"
