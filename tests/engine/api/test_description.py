"""The OpenAPI description is accurate: requests made from it find no 5xx and no answer that breaks it."""

from __future__ import annotations

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

from tests.support.engine import EngineServer

# Routes that would reach other machines, change the store that other tests use, or refuse by design with a
# 5xx.
NOT_HERE = ("/api/pull", "/api/push", "/api/create", "/api/delete", "/api/copy", "/api/blobs", "/api/me")
MODELS = ("chat", "embed", "fim", "think", "tool")
ROUTES = sorted(
    (endpoint.path, method)
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    if method != "HEAD" and not endpoint.path.startswith(NOT_HERE)
)


@pytest.fixture(scope="session")
def description(engine: EngineServer) -> Any:
    return schemathesis.openapi.from_url(f"{engine.url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_keeps_its_word(description: Any, path: str, method: str) -> None:
    checks = [
        not_a_server_error,
        response_schema_conformance,
        content_type_conformance,
        status_code_conformance,
    ]

    @given(case=description[path][method].as_strategy())
    @settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body:
            # Made-up names test one line; real ones test what is behind it.
            case.body["model"] = MODELS[len(repr(case.body)) % len(MODELS)]
        case.call_and_validate(checks=checks, timeout=60)

    ask()
