"""The units that are written are ones that systemd takes, and cron lines that cron can run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackctl.units import install, templates
from stackctl.units.templates import Installation
from tests.support.gates import need_program


def here(**more: object) -> Installation:
    values: dict[str, object] = {
        "stack": "ai",
        "program": Path(shutil.which("true") or "/bin/true"),
        "stack_file": Path("/etc/stackctl/my stack.yaml"),
        "runtime": "docker",
        "data": Path("/mnt/nvme/ai"),
        **more,
    }
    return Installation(**values)  # type: ignore[arg-type]


@pytest.mark.peer
@pytest.mark.parametrize("user", [False, True])
def test_systemd_takes_them(user: bool) -> None:
    need_program("systemd-analyze")
    runtime = "local" if user else "docker"
    found = here(user=user, runtime=runtime, tunnels=("lab",), data_mount=Path("/mnt/nvme"))
    problems = [line for line in install.verify(found) if "docker.service" not in line]
    assert problems == []


def test_the_stack_waits_for_docker_and_its_disk() -> None:
    unit = templates.units(here(data_mount=Path("/mnt/nvme")))["stackctl-ai.service"]
    assert "Requires=docker.service" in unit and "RequiresMountsFor=/mnt/nvme" in unit
    assert "NoNewPrivileges=yes" in unit and "'/etc/stackctl/my stack.yaml'" in unit
    assert "docker.service" not in templates.units(here(runtime="local"))["stackctl-ai.service"]


def test_health_warnings_are_no_failed_unit_and_backups_catch_up() -> None:
    units = templates.units(here())
    assert "SuccessExitStatus=1" in units["stackctl-ai-health.service"]
    assert "Persistent=false" in units["stackctl-ai-health.timer"]
    assert "Persistent=true" in units["stackctl-ai-backup.timer"]
    assert set(templates.enabled(here())) == {
        "stackctl-ai.service",
        "stackctl-ai-health.timer",
        "stackctl-ai-backup.timer",
        "stackctl-ai-models.timer",
    }


def test_cron_lines_are_absolute_and_do_not_overlap() -> None:
    lines = [line for line in templates.cron(here()).splitlines() if line[0] in "*0123456789"]
    assert len(lines) == 3
    assert all("flock -n" in line and f"{here().program} -f" in line and "root " in line for line in lines)


def test_install_writes_only_what_differs(tmp_path: Path) -> None:
    written = install.install(here(), target=tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in written}
    assert install.install(here(), target=tmp_path) == written
    assert {path: path.stat().st_mtime_ns for path in written} == stamps
    assert not list(tmp_path.glob(".*"))
