"""systemd units and cron lines of a stack, as text. Pure: nothing is written or run here.

The stack's unit comes after Docker and after the disk that the models are on; the timers spread their load,
and those that must not be missed catch up after a time without power.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

_SANDBOX = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""


@dataclass(frozen=True)
class Installation:
    """Where things are on this host; every path is absolute, because units and cron have no PATH to speak
    of."""

    stack: str
    program: Path
    stack_file: Path
    runtime: str
    data: Path
    data_mount: Path | None = None
    user: bool = False  # for `systemctl --user`
    tunnels: tuple[str, ...] = ()
    procedures: frozenset[str] = frozenset({"backup", "model-refresh"})  # those that there are

    @property
    def jobs(self) -> tuple[Job, ...]:
        """A job whose procedure is not there would only fail at night."""
        return tuple(job for job in JOBS if job.arguments[0] != "run" or job.arguments[1] in self.procedures)


@dataclass(frozen=True)
class Job:
    """A command at times."""

    name: str
    description: str
    arguments: tuple[str, ...]
    calendar: str
    cron: str
    persistent: bool
    timeout: str
    harmless: str = ""  # exit codes that are not a failure of the unit


# Nobody is there at boot to say whether an upgrade that the power cut ended is to be gone on with.
AT_BOOT = ("up", "--wait", "300", "--take-back")
JOBS = (
    Job(
        "health",
        "health check",
        ("health", "--hard", "--quiet-ok"),
        "*:0/5",
        "*/5 * * * *",
        False,
        "90s",
        "1",
    ),
    Job("backup", "backup", ("run", "backup"), "*-*-* 03:20", "20 3 * * *", True, "31h"),
    Job("models", "model refresh", ("run", "model-refresh"), "Sun *-*-* 04:40", "40 4 * * 0", True, "6h"),
)


def units(here: Installation) -> dict[str, str]:
    """File name -> text."""
    found = {f"stackctl-{here.stack}.service": _stack_unit(here)}
    for job in here.jobs:
        found[f"stackctl-{here.stack}-{job.name}.service"] = _job_unit(here, job)
        found[f"stackctl-{here.stack}-{job.name}.timer"] = _timer(here, job)
    for tunnel in here.tunnels:
        found[f"stackctl-tunnel-{tunnel}.service"] = _tunnel_unit(here, tunnel)
    return found


def enabled(here: Installation) -> list[str]:
    """The units that are switched on: the stack, the timers, the tunnels; a timer starts its service
    itself."""
    return [
        name for name in units(here) if not any(name.endswith(f"-{job.name}.service") for job in here.jobs)
    ]


def cron(here: Installation) -> str:
    """For /etc/cron.d; `flock -n` keeps a slow run from meeting the next one."""
    lines = ["SHELL=/bin/sh", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    user = "" if here.user else "root "
    for job in here.jobs:
        lock = f"/tmp/stackctl-{here.stack}-{job.name}.lock"
        lines.append(f"{job.cron} {user}flock -n {lock} {_command(here, *job.arguments)}")
    lines.append(f"@reboot {user}{_command(here, *AT_BOOT)}")
    return "\n".join(lines) + "\n"


def _command(here: Installation, *arguments: str) -> str:
    return shlex.join([str(here.program), "-f", str(here.stack_file), *arguments])


def _stack_unit(here: Installation) -> str:
    docker = here.runtime == "docker" and not here.user
    mounts = [str(here.data_mount)] if here.data_mount else []
    lines = [
        "[Unit]",
        f"Description=LLM stack {here.stack}",
        "After=network-online.target" + (" docker.service" if docker else ""),
        "Wants=network-online.target",
        *(["Requires=docker.service"] if docker else []),
        *([f"RequiresMountsFor={' '.join(mounts)}"] if mounts else []),
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"ExecStart={_command(here, *AT_BOOT)}",
        f"ExecStop={_command(here, 'down')}",
        "TimeoutStartSec=1h",
        "TimeoutStopSec=5min",
        *_sandbox(here, local=here.runtime == "local"),
        "",
        "[Install]",
        f"WantedBy={'default.target' if here.user else 'multi-user.target'}",
        "",
    ]
    return "\n".join(lines)


def _job_unit(here: Installation, job: Job) -> str:
    lines = [
        "[Unit]",
        f"Description=LLM stack {here.stack}: {job.description}",
        f"After=stackctl-{here.stack}.service",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={_command(here, *job.arguments)}",
        f"TimeoutStartSec={job.timeout}",
        *([f"SuccessExitStatus={job.harmless}"] if job.harmless else []),
        "Nice=10",
        *_sandbox(here, local=here.runtime == "local"),
        "",
    ]
    return "\n".join(lines)


def _timer(here: Installation, job: Job) -> str:
    lines = [
        "[Unit]",
        f"Description=LLM stack {here.stack}: when the {job.description} runs",
        "",
        "[Timer]",
        f"OnCalendar={job.calendar}",
        "RandomizedDelaySec=30",
        "AccuracySec=10s",
        f"Persistent={'true' if job.persistent else 'false'}",
        "",
        "[Install]",
        "WantedBy=timers.target",
        "",
    ]
    return "\n".join(lines)


def _tunnel_unit(here: Installation, tunnel: str) -> str:
    lines = [
        "[Unit]",
        f"Description=Tunnel {tunnel} to an LLM stack",
        "After=network-online.target",
        "",
        "[Service]",
        f"ExecStart={shlex.join([str(here.program), 'tunnel', 'up', tunnel, '--foreground', '--persist'])}",
        "Restart=always",
        "RestartSec=5",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


def _sandbox(here: Installation, *, local: bool) -> list[str]:
    """User units cannot have most of it; a local engine needs its GPU devices and its own control group."""
    if here.user:
        return ["NoNewPrivileges=yes"]
    lines = _SANDBOX.strip().splitlines()
    if local:
        # The services live on in the unit's control group after `up` has ended.
        lines = [line for line in lines if not line.startswith(("PrivateTmp", "RestrictRealtime"))]
    return lines
