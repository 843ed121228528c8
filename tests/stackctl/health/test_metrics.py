"""Reading Prometheus text, and the arithmetic on two samples of it."""

from __future__ import annotations

from stackctl.health.look import metrics

TEXT = r"""
# HELP x_total Things.
# TYPE x_total counter
x_total{route="/a",status="200"} 10
x_total{route="/b \"q\" {c}",status="503"} 2.5e1
x_total{route="/a",status="500"} 1
up 1 1700000000000
bad_value nonsense
h_bucket{le="0.1",model="a"} 5
h_bucket{le="1",model="a"} 9
h_bucket{le="+Inf",model="a"} 10
h_bucket{le="0.1",model="b"} 0
h_bucket{le="1",model="b"} 0
h_bucket{le="+Inf",model="b"} 10
"""


def test_text_is_parsed_with_odd_labels_and_sums_by_them() -> None:
    samples = metrics.parse(TEXT)
    assert metrics.total(samples, "x_total") == 36
    assert metrics.total(samples, "x_total", status="5*") == 26
    assert metrics.total(samples, "x_total", status="503") == 25
    assert metrics.total(samples, "up") == 1
    assert "bad_value" not in samples
    assert metrics.total(samples, "missing") == 0


def test_quantiles_as_prometheus_counts_them() -> None:
    counts = metrics.buckets(metrics.parse(TEXT), "h")
    assert counts == {"0.1": 5, "1": 9, "+Inf": 20}
    assert metrics.quantile(0.25, counts) == 0.1
    assert metrics.quantile(0.35, counts) == 0.1 + 0.9 * (7 - 5) / 4
    assert metrics.quantile(0.95, counts) == 1
    assert metrics.quantile(0.5, {}) is None
    assert metrics.quantile(0.5, {"1": 0, "+Inf": 0}) is None


def test_growth_survives_a_restart_of_the_engine() -> None:
    assert metrics.since({"a": 7, "b": 3}, {"a": 5, "b": 3}) == {"a": 2, "b": 0}
    assert metrics.since({"a": 2, "b": 4}, {"a": 5, "b": 3}) == {"a": 2, "b": 4}
    assert metrics.since({"new": 4}, {}) == {"new": 4}
