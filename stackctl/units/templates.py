"""systemd units and cron lines of a stack, as text. Pure: nothing is written or run here.

The stack's unit comes after Docker and after the disk that the models are on; the timers spread their load,
and those that must not be missed catch up after a time without power.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from stackctl.tunnel import unit as tunnel_unit

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
    state: Path = Path("/var/lib/stackctl")
    data_mount: Path | None = None
    overlay: str | None = None
    mounts: tuple[Path, ...] = ()  # more folders whose disks must be there: models, volumes
    owner: str = "root"  # whom cron runs the lines as
    user: bool = False  # for `systemctl --user`
    tunnels: tuple[str, ...] = ()
    procedures: frozenset[str] = frozenset({"backup", "model-refresh"})  # those that there are

    @property
    def environment(self) -> Path:
        """Written at the installation: see `environment`."""
        return self.state / "units.env"

    @property
    def folders(self) -> list[Path]:
        """Every one whose file system must be mounted first, each once."""
        first = [self.data_mount] if self.data_mount else []
        return list(dict.fromkeys([*first, self.data, *self.mounts, self.state, self.stack_file.parent]))

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
        found[tunnel_unit.unit_name(tunnel)] = tunnel_unit.render(tunnel, (), str(here.stack_file))
    return found


def enabled(here: Installation) -> list[str]:
    """The units that are switched on: the stack, the timers, the tunnels; a timer starts its service
    itself."""
    started_by_timers = {f"stackctl-{here.stack}-{job.name}.service" for job in here.jobs}
    return [name for name in units(here) if name not in started_by_timers]


def cron(here: Installation) -> str:
    """For /etc/cron.d; `flock -n` keeps a slow run from meeting the next one."""
    lines = ["SHELL=/bin/sh", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    user = "" if here.user else f"{here.owner} "
    # The state folder is the owner's: in /tmp another user could hold the lock, or put a link in its place.
    for job in here.jobs:
        lock = shlex.quote(str(here.state / f"cron-{job.name}.lock"))
        lines.append(f"{job.cron} {user}{_cron_command(here, f'flock -n {lock} ', *job.arguments)}")
    lines.append(f"@reboot {user}{_cron_command(here, '', *AT_BOOT)}")
    return "\n".join(lines) + "\n"


def _arguments(here: Installation, *arguments: str) -> list[str]:
    overlay = ["--overlay", here.overlay] if here.overlay else []
    return [str(here.program), "-f", str(here.stack_file), *overlay, *arguments]


def _cron_command(here: Installation, prefix: str, *arguments: str) -> str:
    line = (
        f"set -a; . {shlex.quote(str(here.environment))}; {prefix}{shlex.join(_arguments(here, *arguments))}"
    )
    return line.replace("%", r"\%")  # cron ends the command there


def _command(here: Installation, *arguments: str) -> str:
    """As systemd reads it: `%` and `$` stand for something else there, and a backslash in quotes, too."""
    return " ".join(
        _quoted(word).replace("%", "%%").replace("$", "$$") for word in _arguments(here, *arguments)
    )


def _quoted(word: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _mounts(here: Installation) -> str:
    return "RequiresMountsFor=" + " ".join(_quoted(str(one)).replace("%", "%%") for one in here.folders)


def _environment(here: Installation) -> str:
    return "EnvironmentFile=" + str(here.environment).replace("%", "%%")


def _stack_unit(here: Installation) -> str:
    docker = here.runtime == "docker" and not here.user
    lines = [
        "[Unit]",
        f"Description=LLM stack {here.stack}",
        "After=network-online.target" + (" docker.service" if docker else ""),
        "Wants=network-online.target",
        *(["Requires=docker.service"] if docker else []),
        _mounts(here),
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        _environment(here),
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
        _mounts(here),
        "",
        "[Service]",
        "Type=oneshot",
        _environment(here),
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


def _sandbox(here: Installation, *, local: bool) -> list[str]:
    """User units cannot have most of it; a local engine needs its GPU devices and its own control group."""
    if here.user:
        return ["NoNewPrivileges=yes"]
    lines = _SANDBOX.strip().splitlines()
    if local:
        # The services live on in the unit's control group after `up` has ended.
        lines = [line for line in lines if not line.startswith(("PrivateTmp", "RestrictRealtime"))]
    return lines
