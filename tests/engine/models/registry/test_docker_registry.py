"""Debian's registry as a peer: push, pull, a login, TLS, and a blob that is there already."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme
from llm_engine.models.create import create_from_gguf
from llm_engine.models.errors import RegistryError
from llm_engine.models.model import Model
from llm_engine.models.names import Name
from llm_engine.models.registry import push as pushing
from llm_engine.models.registry.credentials import Credential, Credentials
from llm_engine.models.registry.pull import Puller
from llm_engine.models.registry.push import push
from llm_engine.models.store import ModelStore

from tests.support.registries import PASSWORD, USER, docker_registry
from tests.support.tokens import token_server

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """With a password and TLS; gives the address and the authority's certificate."""
    folder = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    server.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    with docker_registry(folder, auth=True, tls=(folder / "cert.pem", folder / "key.pem")) as host:
        yield host, folder / "ca.pem"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Credentials(tmp_path / "credentials.json", tmp_path / "docker.json")


@pytest.fixture
async def puller(store: ModelStore, credentials: Credentials) -> AsyncIterator[Puller]:
    puller = Puller(store, credentials=credentials)
    yield puller
    await puller.close()


async def pushed(puller: Puller, model: Model, *, insecure: bool = True) -> list[str]:
    return [status.status async for status in push(puller, model, insecure=insecure)]


async def pulled_elsewhere(
    tmp_path: Path, name: str, credentials: Credentials, *, insecure: bool = True
) -> Model:
    store = ModelStore(tmp_path / "elsewhere")
    puller = Puller(store, credentials=credentials)
    try:
        async for _ in puller.pull(Name.parse(name), insecure=insecure):
            pass
    finally:
        await puller.close()
    return store.resolve(name)


async def test_there_and_back(
    plain: str, store: ModelStore, puller: Puller, chat_gguf: Path, tmp_path: Path, credentials: Credentials
) -> None:
    model = create_from_gguf(
        store, f"{plain}/team/one:v1", chat_gguf, system="Be brief.", params={"top_k": 3}
    )
    statuses = await pushed(puller, model)
    assert statuses[0] == "retrieving manifest"
    assert statuses[-2:] == ["pushing manifest", "success"]
    back = await pulled_elsewhere(tmp_path, f"{plain}/team/one:v1", credentials)
    assert back.digest == model.digest
    assert all(back.blobs.verify(layer.digest) for layer in back.manifest.everything)


async def test_in_chunks(
    plain: str,
    store: ModelStore,
    puller: Puller,
    chat_gguf: Path,
    tmp_path: Path,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pushing, "CHUNK", 50_000)
    model = create_from_gguf(store, f"{plain}/team/chunks", chat_gguf, system="in chunks" * 50_000)
    await pushed(puller, model)
    back = await pulled_elsewhere(tmp_path, f"{plain}/team/chunks", credentials)
    assert back.system == model.system
    assert all(back.blobs.verify(layer.digest) for layer in back.manifest.everything)


async def test_pinned_to_a_digest_that_the_tag_has_left(
    plain: str, store: ModelStore, puller: Puller, chat_gguf: Path, tmp_path: Path, credentials: Credentials
) -> None:
    name = f"{plain}/team/moving"
    first = create_from_gguf(store, name, chat_gguf, system="first")
    await pushed(puller, first)
    second = create_from_gguf(store, name, chat_gguf, system="second")
    await pushed(puller, second)
    back = await pulled_elsewhere(tmp_path, f"{name}@sha256:{first.digest}", credentials)
    assert (back.digest, back.system) == (first.digest, "first")


async def test_login_and_tls(
    guarded: tuple[str, Path],
    store: ModelStore,
    chat_gguf: Path,
    tmp_path: Path,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, authority = guarded
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    model = create_from_gguf(store, f"{host}/team/secret", chat_gguf)
    puller = Puller(store, credentials=credentials)
    try:
        with pytest.raises(RegistryError, match="unauthorized") as caught:
            await pushed(puller, model, insecure=False)
        assert caught.value.fix == f"llm-engine login {host}"
        credentials.save(host, Credential(USER, "wrong"))
        with pytest.raises(RegistryError, match="401"):
            await pushed(puller, model, insecure=False)
        credentials.save(host, Credential(USER, PASSWORD))
        assert stat.S_IMODE(os.stat(credentials.path).st_mode) == 0o600
        assert (await pushed(puller, model, insecure=False))[-1] == "success"
    finally:
        await puller.close()
    back = await pulled_elsewhere(tmp_path, f"{host}/team/secret", credentials, insecure=False)
    assert back.digest == model.digest


async def test_a_certificate_that_nobody_vouches_for(
    guarded: tuple[str, Path], tmp_path: Path, credentials: Credentials
) -> None:
    host, _ = guarded
    credentials.save(host, Credential(USER, PASSWORD))
    with pytest.raises(RegistryError, match="certificate"):
        await pulled_elsewhere(tmp_path, f"{host}/team/none", credentials, insecure=False)
    with pytest.raises(RegistryError, match="file does not exist"):
        await pulled_elsewhere(tmp_path, f"https://{host}/team/none", credentials)


async def test_bearer_tokens_for_a_name_and_a_password(
    store: ModelStore, puller: Puller, chat_gguf: Path, tmp_path: Path, credentials: Credentials
) -> None:
    with token_server(tmp_path) as (told, asked), docker_registry(tmp_path, token=told) as host:
        model = create_from_gguf(store, f"{host}/team/secret", chat_gguf)
        with pytest.raises(RegistryError, match="unauthorized"):
            await pushed(puller, model)
        credentials.save(host, Credential(USER, PASSWORD))
        assert (await pushed(puller, model))[-1] == "success"
        assert {scope.rpartition(":")[0] for scope in asked} == {"repository:team/secret"}
        back = await pulled_elsewhere(tmp_path, f"{host}/team/secret", credentials)
        assert back.digest == model.digest


async def test_a_login_that_dockers_helper_keeps(
    guarded: tuple[str, Path],
    store: ModelStore,
    chat_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, authority = guarded
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    secret = json.dumps({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
    helper = tmp_path / "docker-credential-vault"
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {host} ] && echo \'{secret}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    docker = tmp_path / "config.json"
    docker.write_text('{"credsStore":"vault"}')
    puller = Puller(store, credentials=Credentials(tmp_path / "none.json", docker))
    model = create_from_gguf(store, f"{host}/team/helped", chat_gguf)
    try:
        assert (await pushed(puller, model, insecure=False))[-1] == "success"
    finally:
        await puller.close()


def test_dockers_own_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-vault"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\":\\"u-$host\\",\\"Secret\\":\\"s\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    docker = tmp_path / "config.json"
    docker.write_text(
        '{"auths":{"one.example":{"auth":"bmFtZTpwYXNz"}},"credHelpers":{"two.example":"vault","x.example":"missing"}}'
    )
    credentials = Credentials(tmp_path / "none.json", docker)
    assert credentials.get("one.example") == Credential("name", "pass")
    assert credentials.get("two.example") == Credential("u-two.example", "s")
    assert credentials.get("x.example") is None
    assert "pass" not in repr(credentials.get("one.example"))
