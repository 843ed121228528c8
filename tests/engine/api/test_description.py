"""The OpenAPI description is accurate: requests made from it find no 5xx and no answer that breaks it.

`DESCRIPTION_EXAMPLES` sets how many requests are made for each route: more for a long run.
"""

from __future__ import annotations

import hashlib
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

NOWHERE = "127.0.0.1:1/nobody/"
# They answer 5xx by design: there is no account, and the registry that is asked for does not answer.
FAR = ("/api/me", "/api/pull", "/api/push")
# What is never answered with success: those, what is not offered, and what needs a model that hears or a
# request that runs.
NEVER = (
    *FAR,
    *("/api/experimental/web_search", "/api/experimental/web_fetch"),
    *("/v1/audio/transcriptions", "/api/requests/{request_id}"),
)
HI = [{"role": "user", "content": "hi"}]
FINE: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": "fim", "prompt": "a"},
    "/api/chat": {"model": "think", "messages": HI},
    "/api/embed": {"model": "embed", "input": "a"},
    "/api/embeddings": {"model": "embed", "prompt": "a"},
    "/api/tokenize": {"model": "chat", "content": "a"},
    "/api/detokenize": {"model": "chat", "tokens": [5]},
    "/api/show": {"model": "tool"},
    "/api/copy": {"source": "chat", "destination": "copied"},
    "/api/delete": {"model": "doomed"},
    "/api/create": {"model": "made", "from": "fim"},
    "/api/pull": {"model": f"{NOWHERE}m", "insecure": True},
    "/api/push": {"model": f"{NOWHERE}m", "insecure": True},
    "/v1/chat/completions": {"model": "tool", "messages": HI},
    "/v1/completions": {"model": "chat", "prompt": "a"},
    "/v1/embeddings": {"model": "embed", "input": "a"},
    "/v1/rerank": {"model": "rank", "query": "a", "documents": ["b", "c"]},
    "/v1/responses": {"model": "think", "input": "hi"},
    "/v1/messages": {"model": "tool", "max_tokens": 20, "messages": HI},
    "/v1/messages/count_tokens": {"model": "chat", "messages": HI},
}
"""For each route a body that it can do something with."""
CONTENT = b"GGUF"
FINE_PATHS = {"digest": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", "model": "chat"}
ROUTES = sorted((endpoint.path, method) for endpoint in ENDPOINTS for method in endpoint.methods)
EXAMPLES = int(os.environ.get("DESCRIPTION_EXAMPLES", "25"))


@pytest.fixture(scope="module")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """With a store of its own: some routes change it."""
    work = tmp_path_factory.mktemp("description")
    shutil.copytree(model_store, work / "models")
    server = start_engine(work / "models", work / "log")
    assert server.client.post("/api/copy", {"source": "chat", "destination": "doomed"}).status == 200
    assert server.client.post(f"/api/blobs/{FINE_PATHS['digest']}", CONTENT).status == 201
    yield server
    server.stop()


@pytest.fixture(scope="module")
def description(server: EngineServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def aim(path: str, case: Any, number: int) -> None:
    """A third of the requests is what was made up, but for names: those test one line only. The others have
    what their route needs, and of what was made up nothing, then one field more each time. No registry but
    this machine's is asked."""
    for name, fine in FINE_PATHS.items():
        if name in (case.path_parameters or {}) and number % 3 != 2:
            case.path_parameters[name] = fine
    if isinstance(case.body, (bytes, str)) and number % 3 == 0:
        case.body = CONTENT
    fine_body = FINE.get(path)
    if fine_body is None or not isinstance(case.body, dict):
        return
    if number % 3 == 2 and path not in FAR:
        case.body["model"] = fine_body.get("model", "chat")
        if isinstance(case.body.get("from"), str):
            case.body["from"] = "fim"
        return
    made_up = list(case.body.items())[: number // 3] if number % 3 == 0 else list(case.body.items())
    case.body = {**dict(made_up), **fine_body}


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_every_route_keeps_its_word(server: EngineServer, description: Any, path: str, method: str) -> None:
    checks = [response_schema_conformance, content_type_conformance, status_code_conformance]
    if path not in FAR:
        checks.insert(0, not_a_server_error)

    seen: list[int] = []

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
        aim(path, case, len(seen))
        seen.append(case.call_and_validate(checks=checks, timeout=60).status_code)

    ask()
    assert path in NEVER or min(seen) in (200, 201), seen
    assert server.client.alive()
