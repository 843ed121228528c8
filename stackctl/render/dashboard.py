"""The Grafana dashboard, as data: a table of panels, and the JSON that Grafana wants around it.

Every query here is run in a test against a Prometheus that scrapes a running engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "stack-prometheus"}
_WIDTH, _HEIGHT = 8, 7


@dataclass(frozen=True)
class Panel:
    """A picture: its queries with their legends. `rate` windows follow the zoom by $__rate_interval."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({share}, sum by (le, model) "
            f'(rate({metric}_bucket{{model=~"$model"}}[$__rate_interval])))',
            f"{{{{model}}}} {name}",
        )
        for share, name in ((0.5, "median"), (0.95, "95%"))
    )


def _rate(metric: str, by: str = "model") -> str:
    chosen = '{model=~"$model"}' if by == "model" else ""
    return f"sum by ({by}) (rate({metric}{chosen}[$__rate_interval]))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            Panel("Engine", "short", (('up{job="engine"}', "up"),), "stat"),
            Panel("Models loaded", "short", (("llm_engine_loaded_models", "models"),), "stat"),
            Panel("Waiting", "short", (("llm_engine_queue_length", "requests"),), "stat"),
        ),
    ),
    (
        "Speed",
        (
            Panel("Tokens generated", "wps", ((_rate("llm_engine_completion_tokens_total"), "{{model}}"),)),
            Panel("Time to first token", "s", _quantiles("llm_engine_first_token_seconds")),
            Panel("Gap between tokens", "s", _quantiles("llm_engine_token_gap_seconds")),
            Panel("Prompt tokens", "wps", ((_rate("llm_engine_prompt_tokens_total"), "{{model}}"),)),
            Panel(
                "Prompt tokens from the prefix cache",
                "percentunit",
                (
                    (
                        f"{_rate('llm_engine_cached_tokens_total')} / "
                        f"({_rate('llm_engine_prompt_tokens_total')} > 0)",
                        "{{model}}",
                    ),
                ),
            ),
            Panel("Wait for a model or slot", "s", _quantiles("llm_engine_queue_wait_seconds")),
        ),
    ),
    (
        "Requests",
        (
            Panel("By route", "reqps", ((_rate("llm_engine_requests_total", "route"), "{{route}}"),)),
            Panel("By status", "reqps", ((_rate("llm_engine_requests_total", "status"), "{{status}}"),)),
            Panel(
                "Refused: queue full",
                "reqps",
                (("rate(llm_engine_rejected_total[$__rate_interval])", "refused"),),
            ),
        ),
    ),
    (
        "Keys",
        (
            Panel(
                "Tokens by key",
                "wps",
                ((_rate("llm_engine_key_tokens_total", "key, kind"), "{{key}} {{kind}}"),),
            ),
            Panel("Requests by key", "reqps", ((_rate("llm_engine_key_requests_total", "key"), "{{key}}"),)),
        ),
    ),
    (
        "Memory",
        (
            Panel("GPU memory", "bytes", (('llm_engine_model_vram_bytes{model=~"$model"}', "{{model}}"),)),
            Panel("Main memory", "bytes", (('llm_engine_model_ram_bytes{model=~"$model"}', "{{model}}"),)),
            Panel(
                "Context cells in use",
                "percentunit",
                (
                    (
                        'llm_engine_kv_cells_used{model=~"$model"} / llm_engine_kv_cells{model=~"$model"}',
                        "{{model}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Models",
        (
            # Loads are rare, and a series is born with its first one: a rate would miss it.
            Panel(
                "Loads since the start", "short", (('llm_engine_loads_total{model=~"$model"}', "{{model}}"),)
            ),
            Panel(
                "Mean load time",
                "s",
                (
                    (
                        'llm_engine_load_seconds_sum{model=~"$model"} / '
                        'llm_engine_load_seconds_count{model=~"$model"}',
                        "{{model}}",
                    ),
                ),
            ),
            Panel("GPUs lost", "short", (("increase(llm_engine_gpu_lost_total[1h])", "lost"),)),
        ),
    ),
)


def queries() -> Iterator[tuple[str, str]]:
    """(panel, query) of the whole dashboard."""
    for _, panels in ROWS:
        for panel in panels:
            for query, _ in panel.queries:
                yield panel.title, query


def dashboard(stack: str) -> str:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(_row(len(panels) + 1, title, top))
        top += 1
        for index, panel in enumerate(row):
            across, down = index % 3, index // 3
            place = {"x": across * _WIDTH, "y": top + down * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(len(panels) + 1, panel, place))
        top += _HEIGHT * ((len(row) + 2) // 3)
    return json.dumps(
        {
            "uid": "stackctl",
            "title": f"LLM stack {stack}",
            "schemaVersion": 39,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": [_model_variable()]},
            "panels": panels,
        }
    )  # on one line: with indentation it takes ten times as long, and nobody reads it but Grafana


def _row(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "collapsed": False, "panels": []}


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "gridPos": place,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + index), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _model_variable() -> dict[str, Any]:
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": "label_values(llm_engine_prompt_tokens_total, model)", "refId": "models"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
