"""Every query of the dashboard and every recording rule, against a Prometheus that scrapes an engine."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from stackctl.config import StackConfig
from stackctl.render import dashboard, monitoring
from tests.support.engine import EngineServer, start_engine
from tests.support.gates import need_program
from tests.support.stacks import free_port, wait_for

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

# These have something to show only after an accident, or with a GPU.
MAY_BE_EMPTY = {"Refused: queue full", "GPUs lost"}


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        # A quantile of nothing is NaN: a series, but no data.
        return [series for series in found if series["value"][1] != "NaN"]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def engine_in_use(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    found = start_engine(model_store, tmp_path_factory.mktemp("dashboard") / "engine.log")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def prometheus(engine_in_use: EngineServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Configured as the product configures it, at one scrape a second."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = StackConfig.model_validate(
        {"name": "test", "services": {"prometheus": {"enabled": True, "port": port, "interval": "1s"}}}
    )
    engine = urlsplit(engine_in_use.url).netloc
    files = monitoring.prometheus_files(config, engine=engine, own=f"127.0.0.1:{port}")
    for name, text in files.items():
        (folder / name).write_text(text)
    argv = [
        need_program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        found = Prometheus(port)
        wait_for(found.ready, "Prometheus is ready", 60)
        use(engine_in_use)
        wait_for(lambda: found.query("llm_engine_completion_tokens_total"), "the first scrape", 60)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def use(engine: EngineServer) -> None:
    """Two turns of one conversation: the second finds its beginning in the prefix cache."""
    prompt = "Tell me about foxes and dogs, and do take your time with it. " * 4
    for more in ("", " And now the rest."):
        body = {"model": "chat", "prompt": prompt + more, "raw": True, "stream": False}
        assert engine.client.post("/api/generate", body).status == 200


def filled(query: str) -> str:
    """As Grafana fills it: all models, a window over some scrapes."""
    return query.replace("$__rate_interval", "30s").replace("$model", ".*").replace("[1h]", "[30s]")


def test_every_panel_shows_data(prometheus: Prometheus, engine_in_use: EngineServer) -> None:
    empty = {title: query for title, query in dashboard.queries() if title not in MAY_BE_EMPTY}

    def fill() -> bool:
        use(engine_in_use)
        for title, query in list(empty.items()):
            if prometheus.query(filled(query)):
                del empty[title]
        return not empty

    try:
        wait_for(fill, "every panel has data", 120)
    except AssertionError:
        raise AssertionError(f"no data: {empty}") from None
    for title, query in dashboard.queries():
        if title in MAY_BE_EMPTY:
            prometheus.query(filled(query))


def test_every_recording_rule_has_data(prometheus: Prometheus, engine_in_use: EngineServer) -> None:
    groups = yaml.safe_load((monitoring.TEMPLATES / "recording.yml").read_text())["groups"]
    names = [rule["record"] for group in groups for rule in group["rules"]]

    def all_there() -> bool:
        use(engine_in_use)
        return all(prometheus.query(f'{{__name__="{name}"}}') for name in names)

    wait_for(all_there, "every recording rule has data", 60)


def test_no_alert_fires_on_a_well_engine(prometheus: Prometheus) -> None:
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
