"""The units in a real systemd: enabled, the stack started by them, the timer firing `stackctl health`.

systemd runs as the first process of a container that sees this checkout at its own path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gates import refuse
from tests.support.stacks import BASE, PROGRAM, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]
FILE = "/etc/stack/stack.yaml"
DOCKERFILE = f"""
FROM {BASE}
COPY images/engine/use-ca /usr/local/bin/
RUN --mount=type=secret,id=ca use-ca apt-get update -qq \\
    && DEBIAN_FRONTEND=noninteractive use-ca apt-get install -y -qq --no-install-recommends systemd dbus \\
    && rm -rf /var/lib/apt/lists/*
RUN mkdir -p /etc/stack && printf 'name: t\\nruntime: local\\n' > {FILE}
CMD ["/lib/systemd/systemd"]
"""
SOON = r"""
mkdir -p /etc/systemd/system/stackctl-t-health.timer.d
printf '[Timer]\nOnCalendar=\nOnActiveSec=100ms\nAccuracySec=10ms\nRandomizedDelaySec=0\n' \
    > /etc/systemd/system/stackctl-t-health.timer.d/soon.conf
systemctl daemon-reload
systemctl restart stackctl-t-health.timer
"""


@pytest.fixture(scope="session")
def systemd_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    tag = f"stackctl-test-systemd:{hashlib.sha256(DOCKERFILE.encode()).hexdigest()[:12]}"
    with (tmp_path_factory.getbasetemp().parent / "systemd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (
            subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode
            == 0
        ):
            return tag
        network = ["--network", os.environ.get("BUILD_NETWORK", "default")]
        bundle = os.environ.get("SSL_CERT_FILE")
        secret = ["--secret", f"id=ca,src={bundle}"] if bundle else []
        done = subprocess.run(
            ["docker", "buildx", "build", "--load", *network, *secret, "-t", tag, "-f", "-", str(ROOT)],
            input=DOCKERFILE,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        refuse(f"no image with systemd could be built: {done.stderr[-300:]}", "REQUIRE_DOCKER")
    return tag


@pytest.fixture
def machine(systemd_image: str) -> Iterator[str]:
    """The id of a container that systemd has booted."""
    seen = {str(ROOT), sys.base_prefix} - {"/usr"}
    mounts = [part for path in seen for part in ("-v", f"{path}:{path}:ro")]
    scratch = [part for path in ("/run", "/run/lock", "/tmp") for part in ("--tmpfs", path)]
    command = ["docker", "run", "-d", "--rm", "--privileged", "--cgroupns=private", *scratch, *mounts]
    made = subprocess.run(
        [*command, systemd_image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        # `degraded`: some unit of Debian's own does not like a container. Ours are what is looked at.
        booted = ("running", "degraded")
        wait_for(
            lambda: told(made, "systemctl", "is-system-running").strip() in booted, "systemd has booted", 90
        )
        yield made
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["docker", "rm", "-f", made], capture_output=True, check=False, timeout=60)


def told(machine: str, *command: str) -> str:
    done = subprocess.run(["docker", "exec", machine, *command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


OVERLAY = """services:
  engine:
    port: "${ENGINE_PORT}"
    environment: {NOTE: "${NOTE}"}
"""
NOTE = """it's "5" $HOME `id` \\ %d"""


def test_installed_units_start_the_stack_and_fire_the_health_check(machine: str) -> None:
    put = ["docker", "exec", "-i", machine, "tee", FILE.replace(".yaml", ".night.yaml")]
    subprocess.run(put, input=OVERLAY, text=True, check=True, capture_output=True)
    here = ["env", "ENGINE_PORT=12345", f"NOTE={NOTE}", PROGRAM, "-f", FILE, "--overlay", "night"]
    said = told(machine, *here, "install-units", "--yes")
    assert "wrote /etc/systemd/system/stackctl-t.service" in said, said
    for unit in ("stackctl-t.service", "stackctl-t-health.timer", "stackctl-t-backup.timer"):
        assert told(machine, "systemctl", "is-enabled", unit).strip() == "enabled"
    assert told(machine, "systemctl", "is-active", "stackctl-t-health.timer").strip() == "active"

    assert told(machine, "systemctl", "start", "stackctl-t.service") == ""
    status = json.loads(told(machine, PROGRAM, "-f", FILE, "status", "--json"))["services"][0]
    # With the overlay and the variables of the installation, which systemd itself knows nothing of.
    assert (status["health"], status["ports"][0]["host_port"]) == ("healthy", 12345)
    assert told(machine, PROGRAM, "-f", FILE, "exec", "engine", "printenv", "NOTE") == NOTE + "\n"

    assert told(machine, "sh", "-c", SOON) == ""
    log = wait_for(
        lambda: (
            "Finished" in (text := told(machine, "journalctl", "-u", "stackctl-t-health", "-o", "cat"))
            and text
        ),
        "the timer has fired the health check",
        90,
    )
    assert "Failed" not in log
    properties = told(machine, "systemctl", "show", "-p", "Result,ExecMainStatus", "stackctl-t-health")
    assert properties.split() == ["Result=success", "ExecMainStatus=0"]

    assert told(machine, "systemctl", "stop", "stackctl-t.service") == ""
    assert told(machine, "systemctl", "show", "-p", "Result", "stackctl-t").strip() == "Result=success"
    assert "llm_engine" not in told(machine, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
