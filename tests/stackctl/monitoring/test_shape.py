"""The monitoring services as they are rendered: policy kept, files given, passwords out of sight."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from stackctl.config import StackConfig
from stackctl.errors import ConfigError
from stackctl.render.compose import render_compose
from stackctl.render.dashboard import dashboard, queries
from stackctl.render.facts import Facts
from stackctl.render.processes import render_processes


def config(**services: Any) -> StackConfig:
    both = {"prometheus": {"enabled": True}, "grafana": {"enabled": True}}
    return StackConfig.model_validate({"name": "test", "services": both | services})


def test_compose_has_both_on_loopback_with_their_files() -> None:
    rendered = render_compose(config(), Facts("docker"))
    services = rendered.document["services"]
    for name, port in (("prometheus", "9090"), ("grafana", "3001")):
        assert services[name]["ports"][0]["host_ip"] == "127.0.0.1"
        assert services[name]["ports"][0]["published"] == port
        assert services[name]["read_only"] is True
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    targets = {mount["target"] for mount in services["prometheus"]["volumes"]}
    assert {"/data", "/etc/prometheus/prometheus.yml", "/etc/prometheus/alerts.yml"} <= targets
    scrape = next(text for name, text in rendered.files.items() if name.endswith("prometheus.yml"))
    assert json.loads(scrape)["scrape_configs"][0]["static_configs"] == [{"targets": ["engine:11434"]}]
    assert services["grafana"]["secrets"] == ["grafana_password"]
    assert services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/run/secrets/")


def test_local_runs_prometheus_with_loopback_addresses() -> None:
    facts = Facts("local", programs={"llm-engine": "/x/llm-engine", "prometheus": "/x/prometheus"})
    rendered = render_processes(config(grafana={"enabled": False}), facts)
    argv = rendered.document["services"]["prometheus"]["argv"]
    assert "--config.file={generation}/prometheus.yml" in argv
    assert "--web.listen-address=127.0.0.1:9090" in argv
    assert {"prometheus.yml", "recording.yml", "alerts.yml"} <= set(rendered.files)


def test_local_grafana_says_that_it_needs_docker() -> None:
    facts = Facts("local", programs={"llm-engine": "/x", "prometheus": "/x"})
    with pytest.raises(ConfigError, match="grafana needs the docker runtime"):
        render_processes(config(), facts)


@pytest.mark.parametrize(
    "bad",
    [
        {"prometheus": {"enabled": False}},
        {"prometheus": {"enabled": True, "targets": ["no port"]}},
        {"prometheus": {"enabled": True, "retention": 15}},
        {"prometheus": {"enabled": True, "port": 3001}},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**bad)


def test_the_dashboard_is_whole() -> None:
    found = json.loads(dashboard("home"))
    assert "home" in found["title"]
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    shown = {target["expr"] for panel in found["panels"] for target in panel.get("targets", [])}
    assert shown == {query for _, query in queries()}
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in found["panels"] if p["type"] != "row"]
    assert len(places) == len(set(places))
