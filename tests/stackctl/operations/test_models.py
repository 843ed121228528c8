"""Names and pins of models, against a real engine and a registry that moves on."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
import trustme
from pydantic import ValidationError

from stackctl.config import StackConfig
from stackctl.config.models import WantedModel, full_name, same_model
from stackctl.engine_api import EngineClient
from stackctl.errors import StackctlError, UsageError
from stackctl.operations import models
from tests.support.engine import start_engine
from tests.support.registries import FaultyRegistry, model_registry, serving, sha256


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[EngineClient]:
    folder = tmp_path_factory.mktemp("models")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trusting = {"HOME": str(folder), "SSL_CERT_FILE": str(folder / "ca.pem")}
    server = start_engine(folder / "models", folder / "log", **trusting)
    yield EngineClient(server.url)
    server.stop()


@pytest.fixture
def registry(engine: EngineClient, authority: trustme.CA) -> Iterator[FaultyRegistry]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with serving(model_registry(b"GGUF" + bytes(60)), tls) as registry:
        yield registry
    for model in engine.tags():
        engine.delete(str(model["name"]))


def config(*wanted: object) -> StackConfig:
    return StackConfig.model_validate({"name": "t", "models": list(wanted)})


def quiet(_event: object) -> None:
    pass


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("library/llama3.2:3b", "llama3.2:3b"),
        ("registry.ollama.ai/library/llama3.2:3b", "llama3.2:3b"),
        ("Registry.Ollama.AI/me/mine", "me/mine:latest"),
        ("127.0.0.1:5000/library/llama3.2:3b", "127.0.0.1:5000/library/llama3.2:3b"),
        ("library", "library:latest"),
    ],
)
def test_a_name_is_known_as_the_engine_lists_it(written: str, listed: str) -> None:
    assert full_name(written) == listed and same_model(written.upper()) == same_model(listed)


def test_what_a_name_may_not_be() -> None:
    with pytest.raises(ValidationError, match="write name: and digest: apart"):
        WantedModel(name=f"llama@sha256:{'a' * 64}")
    with pytest.raises(ValidationError, match="listed twice"):
        config("llama3.2:3b", "library/Llama3.2:3b")


def test_prune_keeps_what_is_wanted_under_a_longer_name(
    engine: EngineClient, registry: FaultyRegistry
) -> None:
    models.pull(engine, f"{registry.host}/library/some:1", quiet)
    engine.copy(f"{registry.host}/library/some:1", "kept:1")
    wants = config("registry.ollama.ai/library/KEPT:1")
    steps = models.sync_plan(engine, wants, prune=True)
    assert [(step.action, step.name) for step in steps] == [("remove", f"{registry.host}/library/some:1")]
    assert models.missing(models.listing(engine, wants), wants) == []
    with pytest.raises(UsageError, match="wanted by models:"):
        models.refuse_wanted(wants, "kept:1")


def test_a_registry_that_moved_on_replaces_nothing(engine: EngineClient, registry: FaultyRegistry) -> None:
    name = f"{registry.host}/library/some:1"
    pinned = {"name": name, "digest": sha256(registry.manifest)}
    models.pull_wanted(engine, config(pinned), name, quiet)
    first = engine.tags()[0]["digest"]
    assert models.same_digest(first, pinned["digest"])
    assert models.sync_plan(engine, config(pinned), prune=True) == []
    # Others pin what the registry does not have any more: neither sync nor pull takes what it has now.
    newer = model_registry(b"GGUF" + bytes(61))
    registry.manifest, registry.blobs = newer.manifest, newer.blobs
    other = config({"name": name, "digest": f"sha256:{'b' * 64}"})
    with pytest.raises(StackctlError, match="cannot be had as it is pinned") as refused:
        list(models.sync(engine, other, prune=False, progress=quiet))
    assert "stackctl models pin" in str(refused.value.fix)
    with pytest.raises(StackctlError, match="cannot be had as it is pinned"):
        models.pull_wanted(engine, other, name, quiet)
    assert [model["digest"] for model in engine.tags()] == [first]
    models.pull_wanted(engine, config(name), name, quiet)
    assert engine.tags()[0]["digest"] != first
