"""model-refresh with the real engine and a real registry: the tag moves to better weights, then to worse."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from llm_engine.models.create import create_from_gguf
from llm_engine.models.registry.credentials import Credentials
from llm_engine.models.registry.pull import Puller
from llm_engine.models.registry.push import push
from llm_engine.models.scripted import CHATML, build
from llm_engine.models.store import ModelStore

from tests.support.registries import docker_registry
from tests.support.stacks import Folder, free_port

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]
OLD = "The quick brown fox jumps over the lazy dog."
GOOD = "The quick brown fox jumps over the happy dog."
WORSE = "Lorem ipsum and nothing else at all"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the certificate of the authority that the engine has to know."""
    folder = tmp_path / "registry"
    folder.mkdir()
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    server.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    with docker_registry(folder, tls=(folder / "cert.pem", folder / "key.pem")) as host:
        yield host, folder / "ca.pem"


def publish(place: Path, name: str, says: str) -> str:
    """Weights that say one sentence, as the tag of the registry; returns their digest."""
    place.mkdir()
    gguf = build(
        place / "model.gguf", {None: says}, chat_template=CHATML,
        control_tokens=("<|im_start|>", "<|im_end|>"),
    )  # fmt: skip
    model = create_from_gguf(ModelStore(place / "models"), name, gguf)

    async def send() -> None:
        puller = Puller(
            ModelStore(place / "models"), credentials=Credentials(place / "a.json", place / "b.json")
        )
        try:
            async for _ in push(puller, model):
                pass
        finally:
            await puller.close()

    asyncio.run(send())
    return model.digest


def test_better_weights_stay_and_worse_ones_go(
    folder: Folder, tmp_path: Path, registry: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, authority = registry
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    name = f"{host}/team/talker:latest"
    engine = {"port": free_port(), "environment": {"SSL_CERT_FILE": str(authority)}}
    folder.write(
        {
            "runtime": "local",
            "gpu": {"mode": "none"},
            "services": {"engine": engine},
            "models": [name],
            "upgrade": {"probe_tokens": 16, "min_likeness": 0.6},
        }
    )
    folder.ok("up")

    def here() -> dict[str, str]:
        models = folder.ok("models", "list", "--json").json["models"]
        return {model["name"]: model["digest"].removeprefix("sha256:") for model in models}

    old = publish(tmp_path / "one", name, OLD)
    folder.ok("models", "sync")
    assert here() == {name: old}
    same = folder.ok("run", "model-refresh")
    assert "all are the newest already" in same.err and here() == {name: old}

    good = publish(tmp_path / "two", name, GOOD)
    kept = folder.ok("run", "model-refresh")
    assert f"as good as before: {name}" in kept.err, kept.err
    assert here() == {name: good}, "the old weights are let go"

    publish(tmp_path / "three", name, WORSE)
    back = folder.run("run", "model-refresh")
    assert back.code == 4 and "is worse" in back.err and "is not like the old answer" in back.err, back.err
    assert here() == {name: good}
