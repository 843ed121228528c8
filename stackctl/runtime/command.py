"""The one seam for outside commands: argv in, result out, always with a time limit.

Each command is logged as it would be typed (`-v` shows that log), with secrets taken out. A command that
fails raises CommandError, which carries the last lines of what it said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from stackctl.errors import StackctlError
from stackctl.redact import redacted
from stackctl.runtime.docker import endpoint

log = logging.getLogger("stackctl.command")

# What a child may see of our environment: a stray COMPOSE_FILE must not change its meaning. Which Docker
# Engine is meant is said by `endpoint` alone.
_CLEAN = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TERM",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DOCKER_CONFIG",
    "SSH_AUTH_SOCK",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True)
class CommandResult:
    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    duration: float


class CommandError(StackctlError):
    """An outside command failed, was not found, or ran out of time (returncode 127 and 124)."""

    def __init__(self, what: str, result: CommandResult, *, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.result = result


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _CLEAN if name in os.environ}
    return kept | endpoint.environment() | dict(extra or {})


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    check: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    on_line: Callable[[str], None] | None = None,
    on_output: Callable[[str], None] | None = None,
) -> CommandResult:
    """Run to the end. `env` replaces the clean environment; `on_line` hears each line of stderr as it comes,
    `on_output` each of stdout."""
    show(argv)
    started = time.monotonic()
    child_env = dict(env) if env is not None else clean_environment()
    child: list[subprocess.Popen[str]] = []
    try:
        process = _start(child, argv, child_env, cwd, piped=input is not None)
        if on_line is None and on_output is None:
            out, err = process.communicate(input, timeout=timeout)
        else:
            out, err = _follow(process, on_line, on_output, started + timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _stop(process)
        out, err = process.communicate()
        code, err = 124, err + f"\nstopped after {timeout:g} s"
    except OSError as error:
        if child:
            _stop(child[0])
            raise
        result = CommandResult(tuple(argv), 127, "", error.strerror or str(error), 0.0)
        if check:
            raise CommandError(f"cannot run {argv[0]}: {result.stderr}", result) from error
        return result
    except BaseException:
        # Ctrl-C: do not leave the child behind, and do not hide why we stop.
        for process in child:
            _stop(process)
        raise
    result = CommandResult(tuple(argv), code, out, err, time.monotonic() - started)
    log.debug("exit %d after %.2f s", code, result.duration)
    if check and code != 0:
        raise failed(result)
    return result


def show(argv: Sequence[str]) -> None:
    """For `-v`: the command as it would be typed, without secrets."""
    log.info("%s", redacted(shlex.join(argv)))


def interactive(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """With our own standard streams, to the end; returns the exit code. 127 when there is no such program."""
    show(argv)
    try:
        code = subprocess.run(argv, env=env, check=False).returncode
        return code if code >= 0 else 128 - code  # as a shell tells of a signal
    except OSError as error:
        result = CommandResult(tuple(argv), 127, "", error.strerror or str(error), 0.0)
        failure = CommandError(f"cannot run {argv[0]}: {result.stderr}", result)
        failure.exit_code = 127  # as a shell has it: the exit code is the command's
        raise failure from error


def _start(
    child: list[subprocess.Popen[str]],
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
    *,
    piped: bool,
) -> subprocess.Popen[str]:
    """Into `child`, and in a thread, which no signal interrupts: a Ctrl-C while the child comes to be would
    leave it behind with nobody knowing its pid."""
    import threading

    errors: list[Exception] = []

    def start() -> None:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=env,
                cwd=cwd,
                process_group=0,  # so that its children end with it: they hold our pipes open
            )
            child.append(process)
        except Exception as error:  # noqa: BLE001 - raised again where the caller is
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()
        raise
    for error in errors:
        raise error
    return child[0]


def failed(result: CommandResult) -> CommandError:
    said = redacted(tail(result.stderr) or tail(result.stdout) or "it said nothing")
    name = shlex.join(result.argv[:3]) + (" …" if len(result.argv) > 3 else "")
    fix = "stackctl doctor --only docker" if "Cannot connect to the Docker daemon" in said else None
    return CommandError(f"{redacted(name)}: exit {result.returncode}: {said}", result, fix=fix)


def tail(text: str, lines: int = 5) -> str:
    return "\n".join([line for line in text.strip().splitlines() if line.strip()][-lines:])


def _stop(process: subprocess.Popen[str]) -> None:
    """End the command and everything it started."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _follow(
    process: subprocess.Popen[str],
    on_line: Callable[[str], None] | None,
    on_output: Callable[[str], None] | None,
    deadline: float,
) -> tuple[str, str]:
    """Read both pipes, telling of their lines as they come."""
    import threading

    out: list[str] = []
    err: list[str] = []

    def read(pipe: IO[str] | None, lines: list[str], tell: Callable[[str], None] | None) -> None:
        assert pipe is not None
        for line in pipe:
            lines.append(line)
            if tell is not None:
                tell(redacted(line.rstrip("\n")))

    threads = [
        threading.Thread(target=read, args=what, daemon=True)
        for what in ((process.stderr, err, on_line), (process.stdout, out, on_output))
    ]
    for thread in threads:
        thread.start()
    try:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _stop(process)
        process.returncode = 124
        err.append("stopped: out of time\n")
    for thread in threads:
        thread.join(timeout=5)
    return "".join(out), "".join(err)
