"""Checks of the Docker Engine: versions, permission, cgroup driver, rootless, and firewall illusions."""

from __future__ import annotations

import os

from stackctl.doctor.finding import Finding, error, ok, skipped, warning
from stackctl.doctor.host import Host, version_numbers
from stackctl.errors import StackctlError
from stackctl.runtime.docker import endpoint, project
from stackctl.runtime.docker.identity import of_options

# `start_interval` and `configs` need it; older ones fail on the rendered file.
OLDEST_COMPOSE = (2, 23)
TIMED_OUT = 124
JOIN_GROUP = "sudo usermod -aG docker $USER, then log in anew"


def docker(host: Host) -> Finding:
    found = host.docker_version
    if found.returncode == 0 and found.stdout.strip():
        return ok("docker", f"Docker Engine {found.stdout.strip()} answers")
    said = (found.stderr or found.stdout).strip().splitlines()
    why = said[-1] if said else "nothing answered"
    denied = "permission denied" in why.lower()
    if not host.uses_docker:
        if host.config is not None and host.config.runtime == "local":
            return skipped("docker", "the stack runs as local processes")
        instead = "a stack with runtime: auto runs as local processes"
        if denied:
            return warning("docker", f"no permission on Docker's socket: {why}; {instead}", JOIN_GROUP)
        return Finding("docker", "info", f"{host.choice.reason}: {instead}")
    if found.returncode == 127:
        return error("docker", "docker is not installed", "apt-get install docker.io docker-compose")
    if denied:
        return error("docker", f"no permission on Docker's socket: {why}", JOIN_GROUP)
    return error("docker", f"no Docker Engine answers: {why}", "sudo systemctl start docker")


def docker_version(host: Host) -> Finding:
    info = host.docker_info
    if info is None:
        return skipped("docker-version", "no Docker Engine answers")
    version = str(info["ServerVersion"])
    if version_numbers(version) < (28,):
        return warning(
            "docker-version",
            f"Docker Engine {version}: before 28, neighbours on the network can reach ports that "
            "are published on 127.0.0.1",
            "update Docker Engine to 28 or newer",
        )
    return ok("docker-version", f"Docker Engine {version}")


def compose_version(host: Host) -> Finding:
    if host.docker_info is None:
        return skipped("compose-version", "no Docker Engine answers")
    found = host.command(["docker", "compose", "version", "--short"])
    if found.returncode == TIMED_OUT:
        return skipped("compose-version", "docker compose did not answer in time: this host is very busy")
    if found.returncode != 0:
        return error("compose-version", "docker has no compose plug-in", "apt-get install docker-compose")
    version = found.stdout.strip()
    if version_numbers(version) < OLDEST_COMPOSE:
        return error("compose-version", f"compose {version} is older than 2.23", "update docker-compose")
    return ok("compose-version", f"compose {version}")


def socket_permission(host: Host) -> Finding:
    try:
        engine = endpoint.resolve()
    except StackctlError as failed:
        return error("docker-socket", failed.what, failed.fix or "docker context ls")
    path = engine.host
    if not path.startswith("unix://"):
        return warning(
            "docker-socket",
            f"the engine is at {path} ({engine.source}): bind mounts mean that machine's disk",
            "docker context use default" if engine.source != "DOCKER_HOST" else "unset DOCKER_HOST",
        )
    file = path.removeprefix("unix://")
    if not os.path.exists(file):
        return skipped("docker-socket", f"{file} does not exist")
    if os.stat(file).st_mode & 0o002:
        return error(
            "docker-socket",
            f"{file} is writable by everybody, which is root for everybody",
            f"sudo chmod o= {file}",
        )
    if not os.access(file, os.W_OK):
        return error(
            "docker-socket", f"no permission on {file}", "sudo usermod -aG docker $USER, log in anew"
        )
    return ok("docker-socket", f"{file} is ours to use, and not everybody's")


def project_name(host: Host) -> Finding:
    """The stack's name is the compose project's: two of a name would remove each other."""
    if host.config is None or not host.uses_docker or host.docker_info is None:
        return skipped("project-name", "no stack on Docker here")
    name = host.config.name
    if found := project.strangers(name, name, host.command):
        return error("project-name", project.told(name, found), project.other_name(name))
    return ok("project-name", f"no other compose project is called {name}")


def cgroup_driver(host: Host) -> Finding:
    """With the systemd driver a `daemon-reload` takes the GPU away from running containers, where it was
    given to them by the NVIDIA runtime; the engine goes on on the CPU and does not say so. That a CDI spec
    lies about changes nothing: the mode that is rendered decides."""
    info = host.docker_info
    if info is None:
        return skipped("cgroup-driver", "no Docker Engine answers")
    driver, mode = info.get("CgroupDriver"), host.gpu_mode
    if driver == "systemd" and mode in ("nvidia", "nvidia-runtime"):
        first = "" if host.gpu.cdi_specs else "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; "
        return warning(
            "cgroup-driver",
            f"cgroup driver systemd, and the GPU is given by the NVIDIA runtime (gpu mode {mode}): the next "
            "daemon-reload takes it from running containers",
            f'{first}set gpu.mode: cdi, or "exec-opts": ["native.cgroupdriver=cgroupfs"] in '
            "/etc/docker/daemon.json",
        )
    return ok("cgroup-driver", f"{driver}, gpu mode {mode}")


def rootless(host: Host) -> Finding:
    """Whose are the files that containers see as theirs?"""
    info = host.docker_info
    if info is None:
        return skipped("rootless", "no Docker Engine answers")
    found = of_options(info.get("SecurityOptions") or [])
    if found.shifted:
        return error(
            "rootless",
            "userns-remap is on: containers would have other user ids than the folders and secrets that up "
            "makes, and could not read them",
            'take "userns-remap" out of /etc/docker/daemon.json and restart docker, or use rootless Docker',
        )
    if not found.rootless:
        return ok("rootless", "neither rootless nor shifted user ids")
    file = endpoint.resolve().host.removeprefix("unix://")
    owner = os.stat(file).st_uid if os.path.exists(file) else os.geteuid()
    if owner != os.geteuid():
        return error(
            "rootless",
            f"this rootless Docker is of user id {owner}: its containers could not read what user id "
            f"{os.geteuid()} makes",
            "run stackctl as that user",
        )
    if info.get("CgroupDriver") == "none":
        return warning(
            "rootless",
            "rootless Docker without control groups: limits of memory, cpus and processes do not hold",
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        )
    return warning(
        "rootless",
        "rootless Docker: ports below 1024 are closed, and GPUs need no-cgroups in the NVIDIA toolkit",
        "use ports from 1024 up, and gpu.mode: cdi",
    )


def firewall(host: Host) -> Finding:
    """ufw filters INPUT, Docker forwards: a published port is open whatever `ufw status` says."""
    if host.config is None or host.config.expose != "lan":
        return ok("firewall", "published on loopback only: the firewall has nothing to do")
    if host.docker_info is None:
        return skipped("firewall", "no Docker Engine answers")
    active = "yes" in (host.read("/etc/ufw/ufw.conf") or "").partition("ENABLED=")[2][:4].lower()
    evidence = (
        "expose: lan, and ufw is on: published ports bypass it"
        if active
        else "expose: lan: ports are open to the network"
    )
    return warning(
        "firewall", evidence, "set expose: loopback and use stackctl tunnel, or rules in DOCKER-USER"
    )
