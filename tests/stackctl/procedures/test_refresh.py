"""model-refresh that was cut off on its way back: the undo goes on from whatever it finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackctl.engine_api import EngineClient
from stackctl.procedures.actions import models
from stackctl.procedures.context import Context
from tests.stackctl.upgrade.conftest import standin

NAMES = ("standin:latest", "improving:latest")


@pytest.fixture
def client() -> Iterator[EngineClient]:
    with standin("good", timeout=60) as found:
        yield found


def digests(client: EngineClient) -> dict[str, str]:
    return {str(model["name"]): str(model["digest"])[0] for model in client.tags()}


def pulled(client: EngineClient, tmp_path: Path) -> tuple[Context, models.BeforeArgs]:
    """Both models have newer weights, and their old ones under a second name."""
    before = tuple({"name": str(one["name"]), "digest": one["digest"]} for one in client.tags())
    for name in NAMES:
        client.copy(name, name + models.ASIDE)
        assert list(client.pull(name))
    host: Any = SimpleNamespace(handle=SimpleNamespace(engine=lambda timeout: client))
    return Context(tmp_path, lambda _text: None, host=host), models.BeforeArgs(before=before)


def test_killed_after_the_first_name_was_let_go(client: EngineClient, tmp_path: Path) -> None:
    context, args = pulled(client, tmp_path)
    for name in NAMES:
        client.copy(name + models.ASIDE, name)
    client.delete(NAMES[0] + models.ASIDE)
    assert models.put_back(context, args).ok
    assert digests(client) == dict.fromkeys(NAMES, "0")
    assert models.put_back(context, args).ok, "and once more"


def test_what_was_let_go_already_is_named_and_the_rest_comes_back(
    client: EngineClient, tmp_path: Path
) -> None:
    context, args = pulled(client, tmp_path)
    client.delete(NAMES[1] + models.ASIDE)
    ended = models.put_back(context, args)
    assert not ended.ok and ended.detail.endswith("the old ones were let go: improving:latest")
    assert digests(client) == {NAMES[0]: "0", NAMES[1]: "2"}
