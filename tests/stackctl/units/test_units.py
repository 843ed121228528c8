"""The units that are written are ones that systemd takes, and cron lines that cron can run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stackctl.config import loader
from stackctl.units import environment, install, templates
from stackctl.units.templates import Installation
from tests.support.gates import need_program
from tests.support.stacks import Folder


def here(**more: object) -> Installation:
    values: dict[str, object] = {
        "stack": "ai",
        "program": Path(shutil.which("true") or "/bin/true"),
        "stack_file": Path("/etc/stackctl/my stack.yaml"),
        "runtime": "docker",
        "data": Path("/mnt/nvme/ai"),
        "state": Path("/var/lib/stackctl/ai"),
        **more,
    }
    return Installation(**values)  # type: ignore[arg-type]


@pytest.mark.peer
@pytest.mark.parametrize("user", [False, True])
def test_systemd_takes_them(user: bool) -> None:
    need_program("systemd-analyze")
    runtime = "local" if user else "docker"
    found = here(user=user, runtime=runtime, tunnels=("lab",) if user else (), data_mount=Path("/mnt/nvme"))
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
    found = here(state=tmp_path / "state")
    written = install.install(found, {"A": "b"}, target=tmp_path / "units")
    stamps = {path: path.stat().st_mtime_ns for path in written}
    assert install.install(found, {"A": "c"}, target=tmp_path / "units") == written
    assert found.environment.stat().st_mode & 0o777 == 0o600 and 'A="c"' in found.environment.read_text()
    assert {path: path.stat().st_mtime_ns for path in written} == stamps
    assert not list(tmp_path.rglob(".*"))


NASTY = {
    "QUOTED": """it's "5" $HOME ${X} `id` \\ \\n %d #""",
    "LINES": "one\ntwo",
    "BLANKS": "  a  b ",
}


def test_a_shell_reads_the_environment_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "units.env"
    environment.write(path, NASTY)
    command = ["env", "-i", "sh", "-c", f"set -a; . {path}; set +a; exec env -0"]
    raw = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(pair.split("=", 1) for pair in raw.split("\0") if pair)
    assert {name: found[name] for name in NASTY} == NASTY


def test_what_the_stack_file_refers_to_and_what_stackctl_goes_by_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text("data_dir: ${DATA}\nservices: {engine: {environment: {A: '${UNSET:-x}'}}}\n")
    monkeypatch.setenv("DATA", "/mnt/big")
    loaded = loader.load_with_origins(str(file))
    values = {"DATA": "/mnt/big", "DOCKER_CONTEXT": "rootless", "EDITOR": "vi", "XDG_STATE_HOME": ""}
    assert environment.needed(loaded, values) == {"DATA": "/mnt/big", "DOCKER_CONTEXT": "rootless"}


def test_overlay_environment_and_every_disk_go_into_the_units() -> None:
    found = here(overlay="nightly", mounts=(Path("/mnt/my models"),), data_mount=Path("/mnt/nvme"))
    units = templates.units(found)
    for name in ("stackctl-ai.service", "stackctl-ai-backup.service", "stackctl-ai-health.service"):
        assert "EnvironmentFile=/var/lib/stackctl/ai/units.env" in units[name]
        assert "RequiresMountsFor=/mnt/nvme /mnt/nvme/ai '/mnt/my models' /var/lib/stackctl/ai" in units[name]
        assert " --overlay nightly " in units[name]
    for line in templates.cron(found).splitlines()[2:]:
        assert " --overlay nightly " in line and ". /var/lib/stackctl/ai/units.env; " in line


def test_what_systemd_and_cron_would_take_for_something_else_is_escaped() -> None:
    found = here(stack_file=Path("/srv/100% $HOME/it's.yaml"))
    unit = templates.units(found)["stackctl-ai.service"]
    assert "-f '/srv/100%% $$HOME/it\\'s.yaml' up" in unit
    assert r"100\% " in templates.cron(found) and "100% " not in templates.cron(found)


def test_cron_does_at_boot_what_the_unit_does() -> None:
    boot = " ".join(templates.AT_BOOT)
    line = next(line for line in templates.cron(here()).splitlines() if line.startswith("@reboot"))
    assert line.endswith(f" {boot}") and f" {boot}\n" in templates.units(here())["stackctl-ai.service"]


def test_no_lock_where_everybody_may_write() -> None:
    assert "/tmp" not in templates.cron(here())
    assert "flock -n /var/lib/stackctl/ai/cron-health.lock " in templates.cron(here())


def test_a_cron_line_runs_as_its_owner_with_the_environment(tmp_path: Path) -> None:
    """The health line, handed to the shell that cron would hand it to."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nprintf "%s " "$QUOTED" "$@" > "$OUT"\n')
    program.chmod(0o755)
    found = here(program=program, state=tmp_path / "state", owner="someone")
    environment.write(found.environment, {**NASTY, "OUT": str(tmp_path / "out")})
    line = next(line for line in templates.cron(found).splitlines() if line.startswith("*/5"))
    schedule, command = line.split(" someone ", 1)
    assert schedule == "*/5 * * * *"
    # Cron takes the backslash from before a percent sign.
    subprocess.run(["env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", command.replace(r"\%", "%")], check=True)
    said = (tmp_path / "out").read_text()
    assert NASTY["QUOTED"] in said and "health --hard --quiet-ok" in said


@pytest.mark.parametrize("name", ["health", "my-backup", "gpu-models"])
def test_a_stack_that_is_called_like_a_job_is_enabled(name: str) -> None:
    found = templates.enabled(here(stack=name, user=True, tunnels=("lab-models",)))
    assert {f"stackctl-{name}.service", "stackctl-tunnel-lab-models.service"} <= set(found)
    assert f"stackctl-{name}-backup.service" not in found


def test_a_tunnel_is_a_users_and_knows_its_stack_file(folder: Folder) -> None:
    folder.write({"runtime": "local"})
    refused = folder.run("install-units", "--print", "--tunnel", "lab")
    assert refused.code == 2 and "fix: stackctl install-units --user --tunnel lab" in refused.err
    shown = folder.ok("install-units", "--print", "--json", "--user", "--tunnel", "lab").json
    unit = shown["units"]["stackctl-tunnel-lab.service"]
    assert f"-f {folder.path / 'stack.yaml'} tunnel up lab" in unit and "RestartPreventExitStatus" in unit
