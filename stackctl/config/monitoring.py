"""`services.prometheus` and `services.grafana`: numbers over time, and pictures of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stackctl.config.durations import Duration
from stackctl.config.section import Port, Size, unwritten
from stackctl.config.service import Limits, Service

Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\[\]:-]+:\d{1,5}$")]


class PrometheusService(Service):
    """Prometheus: scrapes the engine, keeps the series, evaluates the rules."""

    image: str = Field("prom/prometheus:v2.53.5", min_length=1)
    port: Port = 9090
    limits: Limits = unwritten(memory=1 << 30, pids=256)
    retention: Duration = Field(15 * 86400.0, ge=3600, description="how long series are kept")
    retention_size: Size = Field(5 << 30, description="at most this much disk")
    interval: Duration = Field(15.0, ge=1, description="between two scrapes")
    targets: tuple[Target, ...] = Field(
        (), description="more to scrape, such as the node_exporter that serves health.textfile"
    )


class GrafanaService(Service):
    """Grafana with the stack's dashboard; log in as admin with the secret grafana_password."""

    image: str = Field("grafana/grafana:11.5.2", min_length=1)
    port: Port = 3001
    limits: Limits = unwritten(memory=512 << 20, pids=512)
