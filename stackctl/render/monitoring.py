"""The files of Prometheus and Grafana: scrape config, rules, data source, dashboard."""

from __future__ import annotations

import json

from stackctl import shipped
from stackctl.config import StackConfig
from stackctl.render.dashboard import DATASOURCE, dashboard

TEMPLATES = shipped.folder("compose") / "monitoring"
RULES = ("recording.yml", "alerts.yml")
PASSWORD_SECRET = "grafana_password"


def prometheus_files(config: StackConfig, *, engine: str, own: str) -> dict[str, str]:
    """File name -> text; `engine` and `own` are where Prometheus sees the engine and itself. JSON is YAML."""
    service = config.services.prometheus
    jobs = [
        {"job_name": "engine", "static_configs": [{"targets": [engine]}]},
        {"job_name": "prometheus", "static_configs": [{"targets": [own]}]},
    ]
    if service.targets:
        jobs.append({"job_name": "more", "static_configs": [{"targets": list(service.targets)}]})
    interval = f"{round(service.interval * 1000)}ms"
    document = {
        "global": {
            "scrape_interval": interval,
            "evaluation_interval": interval,
            "external_labels": {"stack": config.name},
        },
        "rule_files": list(RULES),
        "scrape_configs": jobs,
    }
    rules = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in RULES}
    return {"prometheus.yml": json.dumps(document, indent=1) + "\n", **rules}


def grafana_files(config: StackConfig, *, prometheus: str) -> dict[str, str]:
    """Path below /etc/grafana -> text."""
    source = {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "type": DATASOURCE["type"],
                "uid": DATASOURCE["uid"],
                "access": "proxy",
                "url": prometheus,
                "isDefault": True,
                "editable": False,
            }
        ],
    }
    folder = {"type": "file", "name": "stackctl", "options": {"path": "/etc/grafana/dashboards"}}
    provider = {"apiVersion": 1, "providers": [folder]}
    return {
        "provisioning/datasources/datasource.yaml": json.dumps(source, indent=1),
        "provisioning/dashboards/provider.yaml": json.dumps(provider, indent=1),
        "dashboards/stack.json": dashboard(config.name),
    }


GRAFANA_ENVIRONMENT = {
    "GF_PATHS_DATA": "/data",
    "GF_PATHS_LOGS": "/tmp/logs",
    "GF_PATHS_PROVISIONING": "/etc/grafana/provisioning",
    "GF_LOG_MODE": "console",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_SECURITY_DISABLE_GRAVATAR": "true",
    "GF_SECURITY_ADMIN_PASSWORD__FILE": f"/run/secrets/{PASSWORD_SECRET}",
}
