"""The OpenAPI description is accurate: requests made from it find no 5xx and no answer that breaks it.

`DESCRIPTION_EXAMPLES` sets how many requests are made for each route: more for a long run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from llm_engine.api.routes import ENDPOINTS
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.engine import EngineServer, start_engine

MODELS = ("chat", "embed", "fim", "think", "tool")
# They answer 5xx by design: there is no account, and the registry that is asked for does not answer.
FAR = ("/api/me", "/api/pull", "/api/push")
ROUTES = sorted((endpoint.path, method) for endpoint in ENDPOINTS for method in endpoint.methods)
EXAMPLES = int(os.environ.get("DESCRIPTION_EXAMPLES", "25"))
NOWHERE = "127.0.0.1:1/nobody/"


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """With a store of its own: some routes change it."""
    work = tmp_path_factory.mktemp("description")
    shutil.copytree(model_store, work / "models")
    server = start_engine(work / "models", work / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def description(server: EngineServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def aim(path: str, body: dict[str, Any]) -> None:
    """Made-up names test one line; real ones test what is behind it. No registry but this machine's is
    asked."""
    for key in ("model", "name"):
        if key in body:
            body[key] = MODELS[len(repr(body)) % len(MODELS)]
    if path in ("/api/pull", "/api/push"):
        body["model"], body["insecure"] = f"{NOWHERE}m:{len(repr(body))}", True
    if path == "/api/create":
        body["model"] = "made"
        if isinstance(body.get("from"), str):
            body["from"] = "fim"


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_keeps_its_word(server: EngineServer, description: Any, path: str, method: str) -> None:
    checks = [response_schema_conformance, content_type_conformance, status_code_conformance]
    if path not in FAR:
        checks.insert(0, not_a_server_error)

    @given(case=description[path][method].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if isinstance(case.body, dict):
            aim(path, case.body)
        case.call_and_validate(checks=checks, timeout=60)

    ask()
    assert server.client.alive()
