"""The ways to a registry: through proxies, by Hugging Face's names, and past it to a storage."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from llm_engine.models.create import create_from_gguf
from llm_engine.models.errors import RegistryError
from llm_engine.models.examine import examine
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.names import Name
from llm_engine.models.registry import push as pushing
from llm_engine.models.registry.credentials import Credentials
from llm_engine.models.registry.download import Patience, Traffic
from llm_engine.models.registry.pull import Puller
from llm_engine.models.registry.push import push
from llm_engine.models.store import ModelStore

from tests.support.engine import start_engine
from tests.support.models import SENTENCE
from tests.support.proxy import proxying
from tests.support.registries import FaultyRegistry, free_port, model_registry, serving, sha256
from tests.support.shards import split
from tests.support.storage import redirecting

QUICK = Patience(stall=2.0, tries=4, pause=0.01, longest_pause=0.05)
WEIGHTS = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
async def puller(store: ModelStore, tmp_path: Path) -> AsyncIterator[Puller]:
    credentials = Credentials(tmp_path / "credentials.json", tmp_path / "docker.json")
    puller = Puller(store, traffic=Traffic(patience=QUICK), credentials=credentials)
    yield puller
    await puller.close()


async def pull(puller: Puller, name: str, *, insecure: bool = False) -> None:
    async for _ in puller.pull(Name.parse(name), insecure=insecure):
        pass


@pytest.mark.parametrize("host", ["hf.co", "huggingface.co"])
async def test_hugging_faces_names_through_an_https_proxy(
    puller: Puller, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The proxy leads the names to a server of ours, which has certificates for them."""
    authority = trustme.CA()
    certificate = authority.issue_cert(host, "cdn.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    registry = model_registry(WEIGHTS, ("template", b"{{ .Prompt }}"))

    def to_the_storage(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        if headers["host"] == host and "/blobs/" in path:
            return 302, {"Location": f"https://cdn.example/repos/1{path}"}, b""
        return None

    registry.authorize = to_the_storage
    with (
        serving(registry, tls),
        proxying({f"{host}:443": registry.host, "cdn.example:443": registry.host}) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await pull(puller, f"{host}/someone/Some-Model-GGUF:Q4_K_M")
        assert set(proxy.asked) == {f"CONNECT {host}:443", "CONNECT cdn.example:443"}
    asked = [path for _, path, _ in registry.requests]
    assert asked[0] == "/v2/someone/Some-Model-GGUF/manifests/Q4_K_M"
    model = store.resolve(f"{host}/someone/some-model-gguf:q4_k_m")
    assert model.short_name == f"{host}/someone/Some-Model-GGUF:Q4_K_M"
    assert model.model_path is not None and model.model_path.read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("tag", "found"), [(":Q8_0", "Q8_0"), ("", "Q4_K_M"), (":Some-Q8_0-00001-of-00003.gguf", "Q8_0")]
)
async def test_shards_at_hugging_face_become_one_model(
    puller: Puller,
    store: ModelStore,
    chat_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tag: str,
    found: str,
) -> None:
    """Its registry refuses them; its list of files, and the files themselves, are there."""
    authority = trustme.CA()
    certificate = authority.issue_cert("hf.co", "huggingface.co", "cdn.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    shards = {path.name: path.read_bytes() for path in split(chat_gguf, tmp_path, 3, f"Some-{found}")}
    listed: list[dict[str, object]] = [{"type": "file", "path": "README.md", "size": 5, "oid": "0"}]
    for quant in ("Q8_0", "Q4_K_M"):
        for number in (3, 1, 2):
            path = f"{quant}/Some-{quant}-{number:05d}-of-00003.gguf"
            data = shards.get(path.partition("/")[2], b"another")
            large = {"oid": sha256(data).removeprefix("sha256:"), "size": len(data), "pointerSize": 134}
            listed.append({"type": "file", "path": path, "size": len(data), "oid": "0", "lfs": large})

    def hub(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        if "/manifests/" in path:
            return 400, {}, b'{"error":"This tag is a Sharded GGUF, which the registry does not give out."}'
        if path == "/api/models/someone/Some-GGUF/tree/main?recursive=true":
            return 200, {}, json.dumps(listed).encode()
        if path.startswith("/someone/Some-GGUF/resolve/main/"):
            digest = sha256(shards[path.rpartition("/")[2]])
            return 302, {"Location": f"https://cdn.example/blobs/{digest}"}, b""
        return None

    registry = FaultyRegistry({sha256(data): data for data in shards.values()}, b"", authorize=hub)
    names = ("hf.co:443", "huggingface.co:443", "cdn.example:443")
    with serving(registry, tls), proxying(dict.fromkeys(names, registry.host)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await pull(puller, f"hf.co/someone/Some-GGUF{tag}")
        with pytest.raises(RegistryError, match="has no shards of Q2_K; it has Q4_K_M/Some"):
            await pull(puller, "hf.co/someone/Some-GGUF:Q2_K")
    model = store.resolve(f"hf.co/someone/Some-GGUF{tag}")
    assert [path.read_bytes() for path in model.model_paths] == [shards[name] for name in sorted(shards)]
    whole = GGUFFile.open(chat_gguf)
    assert model.gguf is not None and model.gguf.parameter_count == whole.parameter_count
    assert model.config.model_family == "llama" and model.config.file_type == "F16"
    assert list(examine(store)) == []
    if not tag:
        monkeypatch.delenv("HTTPS_PROXY")
        await asyncio.to_thread(runs_and_quantises, store, model.short_name)


def runs_and_quantises(store: ModelStore, name: str) -> None:
    server = start_engine(store.root, store.root.parent / "log", HOME=str(store.root.parent))
    try:
        asked = {"prompt": "hi", "stream": False}
        assert server.client.post("/api/generate", {"model": name, **asked}).json["response"] == SENTENCE
        body = {"model": "small", "from": name, "quantize": "q8_0", "stream": False}
        assert server.client.post("/api/create", body).json == {"status": "success"}
        assert server.client.post("/api/generate", {"model": "small", **asked}).json["response"] == SENTENCE
        shown = server.client.post("/api/show", {"model": name}).json
        assert f"\nFROM {name}\n" in shown["modelfile"]
    finally:
        server.stop()


def test_a_base_that_is_not_there_is_pulled_first(tmp_path: Path, chat_gguf: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with serving(model_registry(chat_gguf.read_bytes(), ("system", b"pulled")), tls) as registry:
        server = start_engine(
            tmp_path / "models", tmp_path / "log", HOME=str(tmp_path), SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
        try:
            base = f"{registry.host}/some/model"
            body = {"model": "made", "from": base, "parameters": {"top_k": 7}}
            said = [line["status"] for line in server.client.post("/api/create", body).lines]
            shown = server.client.post("/api/show", {"model": "made"}).json
            absent = {"model": "other", "from": f"127.0.0.1:{free_port()}/some/model", "stream": False}
            refused = server.client.post("/api/create", absent)
        finally:
            server.stop()
    assert said[0] == "pulling manifest" and any(text.startswith("pulling ") for text in said[1:])
    assert said[-2:] == ["writing manifest", "success"] and said.count("success") == 1
    assert (shown["system"], shown["details"]["parent_model"]) == ("pulled", f"{base}:latest")
    assert refused.status == 500
    assert refused.json["error"].startswith("pull model manifest: Cannot connect to host")


async def test_an_http_proxy_and_the_hosts_that_it_is_not_for(
    puller: Puller, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(model_registry(WEIGHTS)) as registry, proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        await pull(puller, f"{registry.host}/some/model", insecure=True)
        assert proxy.asked[0] == f"GET {registry.url}/v2/some/model/manifests/latest"
        through = len(proxy.asked)
        store.delete(Name.parse(f"{registry.host}/some/model"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await pull(puller, f"{registry.host}/some/model", insecure=True)
        assert len(proxy.asked) == through


async def test_a_proxy_that_is_not_there_is_named(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(RegistryError, match=f"pull model manifest: .*127.0.0.1.*{port}"):
        await pull(puller, "hf.co/someone/model")


async def test_the_registry_may_want_a_newer_program(puller: Puller) -> None:
    text = b"The model you are attempting to pull requires a newer version of Ollama."
    with serving(model_registry(WEIGHTS)) as registry:
        registry.authorize = lambda path, headers: (412, {}, text)
        with pytest.raises(RegistryError, match=rf"^pull model manifest: 412: {text.decode()}$"):
            await pull(puller, f"{registry.host}/some/model", insecure=True)


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_a_registry_that_sends_uploads_to_a_storage(
    puller: Puller, store: ModelStore, chat_gguf: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr(pushing, "CHUNK", 100_000)
    with redirecting() as uploads:
        uploads.failures = failures
        model = create_from_gguf(store, f"{uploads.host}/team/one", chat_gguf, system="Be brief.")
        statuses = [status async for status in push(puller, model, insecure=True)]
    assert statuses[-1].status == "success"
    layers = model.manifest.everything
    assert uploads.blobs == {
        str(layer.digest): store.blobs.path(layer.digest).read_bytes() for layer in layers
    }
    assert list(uploads.manifests.values()) == [model.manifest.raw]
    size = max(layer.size for layer in model.manifest.layers)
    assert any(status.completed == status.total == size for status in statuses)
    assert len(uploads.stored) > 3 + failures
