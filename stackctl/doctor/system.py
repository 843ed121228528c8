"""Checks of the host itself: the data folder and its disk, ports, clock, user namespaces, locks."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from stackctl.config.section import format_size
from stackctl.doctor.finding import Finding, error, ok, skipped, warning
from stackctl.doctor.host import Host

LOW_SPACE, LOW_INODES = 10 << 30, 0.02
_ORDER = ("error", "warning", "ok")


def data_mount(host: Host) -> Finding:
    if host.config is None:
        return skipped("data-mount", "no stack file")
    mount, data = host.config.data_mount, host.config.data_path
    if mount is None:
        return ok("data-mount", f"{data}; data_mount is not set, so any disk will do")
    if not os.path.ismount(mount):
        return error(
            "data-mount", f"{mount} is not mounted: data would go to the disk below it", f"sudo mount {mount}"
        )
    if not data.is_relative_to(mount):
        return error("data-mount", f"data_dir {data} is not on {mount}", f"set data_dir below {mount}")
    return ok("data-mount", f"{data} is on {mount}")


def models_folder(host: Host) -> Finding:
    """A folder that the stack file names is never made: where it is missing, so is its disk."""
    folder = host.config.services.engine.models_dir if host.config else None
    if folder is None:
        return skipped("models-folder", "no services.engine.models_dir: models lie in data_dir")
    if not folder.is_dir():
        above = _mount_of(_existing(folder))
        return error(
            "models-folder", f"{folder} does not exist; its disk would be {above}", f"ls -ld {folder}"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        return error("models-folder", f"no permission to read {folder}", f"ls -ld {folder}")
    return ok("models-folder", f"{folder}, on the file system mounted at {_mount_of(folder)}")


def disk(host: Host) -> Finding:
    """Room where the models go: the fullest of the disks decides."""
    folders = [Path.cwd()]
    if host.config is not None:
        folders = [host.config.data_path]
        if host.config.services.engine.models_dir is not None:
            folders.append(host.config.services.engine.models_dir)
    return min((_disk(_existing(folder)) for folder in folders), key=lambda one: _ORDER.index(one.severity))


def _disk(path: Path) -> Finding:
    usage = shutil.disk_usage(path)
    evidence = f"{format_size(usage.free)} of {format_size(usage.total)} free at {path}"
    stat = os.statvfs(path)
    if stat.f_files and stat.f_favail / stat.f_files < LOW_INODES:
        return error("disk", f"{stat.f_favail} inodes left at {path}", f"find {path} -xdev -type f | wc -l")
    if usage.free < LOW_SPACE:
        severity = error if usage.free < LOW_SPACE // 10 else warning
        return severity("disk", f"only {evidence}", "stackctl models list, and remove what is not needed")
    return ok("disk", evidence)


def ports(host: Host) -> Finding:
    """Each port of the stack is ours or free."""
    if host.config is None:
        return skipped("ports", "no stack file")
    from stackctl.operations.preflight import held_by_others
    from stackctl.runtime.ports import holder_of

    enabled = host.config.services.enabled()
    wanted = [
        (name, host.config.bind_address, port)
        for name in enabled
        for port in host.config.services.ports_of(name)
    ]
    for (name, _, port), found in held_by_others(wanted, lambda: _published_ports(host), host.choice.name):
        if found.forbidden:
            return error(
                "ports",
                f"this user may not listen on port {port} of {name}: {found.reason}",
                f"set services.{name}.port to 1024 or more",
            )
        who = holder_of(port) or "a process of another user"
        return error(
            "ports", f"port {port} of {name} is held by {who}", f"stop it, or set services.{name}.port"
        )
    return ok("ports", "every port of the stack is free, or the stack's own")


def _published_ports(host: Host) -> set[int]:
    from stackctl.errors import StackctlError
    from stackctl.runtime.selection import runtime_of

    assert host.config is not None
    try:
        status = runtime_of(host.config, host.choice.name).status()
    except StackctlError:
        return set()
    return {port.host_port for service in status.services for port in service.ports}


def clock(host: Host) -> Finding:
    """A clock that is off breaks TLS, tokens and the age of backups."""
    found = host.command(["timedatectl", "show", "-p", "NTPSynchronized", "--value"])
    if found.returncode == 0 and found.stdout.strip() == "yes":
        return ok("clock", "synchronised")
    if found.returncode != 0:
        newest = max((entry.stat().st_mtime for entry in os.scandir("/") if entry.is_dir()), default=0.0)
        if newest > time.time() + 3600:
            return error("clock", "the clock is behind files of this host", "set the clock")
        return skipped("clock", "timedatectl does not answer here")
    return warning("clock", "the clock is not synchronised", "sudo timedatectl set-ntp true")


def user_namespaces(host: Host) -> Finding:
    limit = host.read("/proc/sys/user/max_user_namespaces")
    if limit is not None and limit.strip() == "0":
        return warning(
            "user-namespaces",
            "user namespaces are off: rootless Docker cannot work",
            "sysctl user.max_user_namespaces=15000",
        )
    return ok("user-namespaces", f"at most {limit.strip()}" if limit else "not limited")


def stale_locks(host: Host) -> Finding:
    """The kernel drops a lock with its process, so a lock that is held is a stackctl that runs."""
    if host.config is None:
        return skipped("locks", "no stack file")
    from stackctl.runtime import lock

    held = lock.holder(host.config.name)
    if held is None:
        return ok("locks", "nobody holds the stack's lock")
    return Finding(
        "locks", "info", f"held by {held.get('command')} (pid {held.get('pid')}) since {held.get('since')}"
    )


def secrets_mode(host: Host) -> Finding:
    if host.config is None:
        return skipped("secrets", "no stack file")
    from stackctl.runtime.secrets import SecretStore

    store = SecretStore(host.config.name)
    loose = [name for name in store.names() if not store.info(name).safe]
    if loose:
        return error("secrets", f"{loose[0]} can be read by others", f"chmod 600 {store.path(loose[0])}")
    return ok("secrets", f"{len(store.names())} secrets, readable by their owner only")


def supervisor(host: Host) -> Finding:
    """What a local stack left behind when its supervisor was killed."""
    if host.config is None:
        return skipped("supervisor", "no stack file")
    state = host.config.state_path
    try:
        children = json.loads((state / "children.json").read_text())
    except (OSError, ValueError):
        return ok("supervisor", "no local processes on record")
    from stackctl.runtime.local.runtime import LocalRuntime
    from stackctl.runtime.local.usage import start_time

    if LocalRuntime(host.config).answers():
        return ok("supervisor", "the supervisor answers")
    alive = [name for name, (pid, started) in children.items() if started and start_time(pid) == started]
    if alive:
        return error("supervisor", f"{', '.join(alive)} runs without its supervisor", "stackctl up")
    return ok("supervisor", "not running")


def _mount_of(path: Path) -> Path:
    path = path.resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
