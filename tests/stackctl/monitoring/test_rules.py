"""The scrape configuration and the rules, judged by promtool itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from stackctl.config import StackConfig
from stackctl.render import monitoring
from tests.support.gates import need_program

HERE = Path(__file__).parent


def config(**prometheus: object) -> StackConfig:
    return StackConfig.model_validate(
        {"name": "test", "services": {"prometheus": {"enabled": True, **prometheus}}}
    )


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [need_program("promtool"), *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.peer
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    found = monitoring.prometheus_files(
        config(targets=["node:9100"], interval="5s"), engine="engine:11434", own="127.0.0.1:9090"
    )
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    done = promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


@pytest.mark.peer
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    for name in monitoring.RULES:
        shutil.copy(monitoring.TEMPLATES / name, tmp_path)
    shutil.copy(HERE / "alerts_test.yml", tmp_path)
    done = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_summary_and_something_to_do() -> None:
    rules = yaml.safe_load((monitoring.TEMPLATES / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"] and rule["annotations"]["fix"], rule["alert"]
