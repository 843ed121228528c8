"""The list of checks. To add one: write a function from Host to Finding, and name it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from stackctl.doctor import docker, gpu, system
from stackctl.doctor.finding import Finding, skipped
from stackctl.doctor.host import Host
from stackctl.errors import UsageError

Check = Callable[[Host], Finding]

CHECKS: dict[str, Check] = {
    "docker": docker.docker,
    "docker-version": docker.docker_version,
    "compose-version": docker.compose_version,
    "docker-socket": docker.socket_permission,
    "project-name": docker.project_name,
    "cgroup-driver": docker.cgroup_driver,
    "rootless": docker.rootless,
    "firewall": docker.firewall,
    "gpu": gpu.gpu,
    "nvidia-runtime": gpu.runtime_registered,
    "cdi-spec": gpu.cdi_spec,
    "driver-cuda": gpu.driver_and_image,
    "data-mount": system.data_mount,
    "models-folder": system.models_folder,
    "disk": system.disk,
    "ports": system.ports,
    "clock": system.clock,
    "user-namespaces": system.user_namespaces,
    "locks": system.stale_locks,
    "secrets": system.secrets_mode,
    "supervisor": system.supervisor,
}

# Of no meaning to a stack that runs without it.
DOCKER_ALONE = frozenset(
    {
        "docker-version",
        "compose-version",
        "docker-socket",
        "project-name",
        "cgroup-driver",
        "rootless",
        "firewall",
        "nvidia-runtime",
        "cdi-spec",
        "driver-cuda",
    }
)

# What `up` looks at before it changes anything: an error of one of these refuses, a warning is said.
BEFORE_UP_LOCAL = ("data-mount", "disk", "secrets")
BEFORE_UP = (
    "docker",
    "docker-version",
    "compose-version",
    "project-name",
    "rootless",
    "cgroup-driver",
    "cdi-spec",
    "driver-cuda",
    *BEFORE_UP_LOCAL,
)


def examine(host: Host, only: Sequence[str] = ()) -> Iterable[Finding]:
    """A check that fails itself is a finding, too: the doctor works on a broken host or not at all."""
    unknown = [name for name in only if name not in CHECKS]
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], CHECKS, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else f"; there are: {', '.join(CHECKS)}"
        raise UsageError(
            f"no check '{unknown[0]}'{hint}", fix=f"stackctl doctor --only {close[0] if close else 'disk'}"
        )
    for name in only or CHECKS:
        try:
            if name in DOCKER_ALONE and not host.uses_docker:
                yield skipped(name, f"the stack runs as local processes ({host.choice.reason})")
                continue
            yield CHECKS[name](host)
        except Exception as error:  # noqa: BLE001 - see above
            yield Finding(name, "warning", f"the check itself failed: {type(error).__name__}: {error}", None)
