"""Pulling from a registry that misbehaves: cuts, stalls, wrong bytes, refusals, kills."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from llm_engine.models.digests import Digest
from llm_engine.models.errors import ModelNotFound, ModelsError, RegistryError, StoreFull
from llm_engine.models.names import Name
from llm_engine.models.registry import download, partial
from llm_engine.models.registry.challenge import Challenge
from llm_engine.models.registry.credentials import Credential, Credentials
from llm_engine.models.registry.download import Patience, Traffic
from llm_engine.models.registry.partial import Partial, Ranges
from llm_engine.models.registry.pull import Puller
from llm_engine.models.registry.ratelimit import RateLimit, parse_rate
from llm_engine.models.status import Status
from llm_engine.models.store import ModelStore

from tests.support.registries import Fault, FaultyRegistry, model_registry, serving, sha256

WEIGHTS = random.Random(0).randbytes(3_000_000)
QUICK = Patience(stall=2.0, tries=4, pause=0.01, longest_pause=0.05)


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with serving(model_registry(WEIGHTS, ("template", b"{{ .Prompt }}"))) as registry:
        yield registry


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(download, "PART", 700_000)
    monkeypatch.setattr(download, "FLUSH", 100_000)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
async def puller(store: ModelStore, tmp_path: Path) -> AsyncIterator[Puller]:
    credentials = Credentials(tmp_path / "credentials.json", tmp_path / "docker.json")
    puller = Puller(store, traffic=Traffic(patience=QUICK), credentials=credentials)
    yield puller
    await puller.close()


def name_at(registry: FaultyRegistry, rest: str = "") -> Name:
    return Name.parse(f"{registry.host}/some/model{rest}")


async def pull(puller: Puller, registry: FaultyRegistry, rest: str = "") -> list[Status]:
    return [status async for status in puller.pull(name_at(registry, rest), insecure=True)]


def whole(store: ModelStore, registry: FaultyRegistry) -> bool:
    model = store.resolve(name_at(registry))
    assert model.model_path is not None
    strays = [name for name in os.listdir(store.blobs.root) if len(name) != 71]
    assert strays == []
    return model.model_path.read_bytes() == WEIGHTS and model.manifest.raw == registry.manifest


async def test_statuses_in_order(puller: Puller, store: ModelStore, registry: FaultyRegistry) -> None:
    statuses = await pull(puller, registry)
    texts = list(dict.fromkeys(status.status for status in statuses))
    assert texts[0] == "pulling manifest"
    assert texts[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    weights = [status for status in statuses if status.digest == sha256(WEIGHTS)]
    assert weights[-1].completed == weights[-1].total == len(WEIGHTS)
    assert weights[0].status == f"pulling {Digest.parse(sha256(WEIGHTS)).short}"
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) + 5000  # each byte once


async def test_a_newer_version_takes_the_place_of_the_older(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    await pull(puller, registry)
    newer = model_registry(WEIGHTS, ("template", b"{{ .System }} {{ .Prompt }}"))
    registry.blobs, registry.manifest = newer.blobs, newer.manifest
    texts = [status.status for status in await pull(puller, registry)]
    assert texts[-4:] == [
        "verifying sha256 digest",
        "writing manifest",
        "removing unused layers",
        "success",
    ]
    assert whole(store, registry)
    assert {name.replace("-", ":") for name in os.listdir(store.blobs.root)} == set(newer.blobs)
    assert "removing unused layers" not in [status.status for status in await pull(puller, registry)]
    store.prunes = False
    older = model_registry(WEIGHTS, ("template", b"{{ .Prompt }}"))
    registry.blobs, registry.manifest = older.blobs, older.manifest
    assert "removing unused layers" not in [status.status for status in await pull(puller, registry)]
    assert set(newer.blobs) < {name.replace("-", ":") for name in os.listdir(store.blobs.root)}


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut_after=150_000), Fault(cut_after=10), Fault(cut_after=650_000)],
        [Fault(stall_after=120_000)],
        [Fault(status=500), Fault(status=503), Fault(status=502)],
        [Fault(status=429, headers={"Retry-After": "0"}), Fault(status=429)],
        [Fault(cut_after=0)] * 3,
    ],
    ids=["cuts", "stall", "5xx", "429", "nothing"],
)
async def test_failures_that_pass(
    puller: Puller, store: ModelStore, registry: FaultyRegistry, faults: list[Fault]
) -> None:
    registry.faults = deque(faults)
    await pull(puller, registry)
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) * 1.35


async def test_giving_up_keeps_what_is_there(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    registry.faults = deque([Fault(), *[Fault(status=500)] * 40])
    with pytest.raises(RegistryError, match=r"giving up on sha256:.* after 4 failures: 500"):
        await pull(puller, registry)
    with pytest.raises(ModelNotFound):
        store.resolve(name_at(registry))
    registry.faults.clear()
    sent = registry.sent
    await pull(puller, registry)
    assert whole(store, registry)
    assert registry.sent - sent < len(WEIGHTS) - 600_000


async def test_no_ranges(puller: Puller, store: ModelStore, registry: FaultyRegistry) -> None:
    registry.ranges = False
    registry.faults = deque([Fault(cut_after=500_000), Fault(cut_after=900_000)])
    await pull(puller, registry)
    assert whole(store, registry)


async def test_one_whole_blob_in_place_of_a_part_costs_no_progress(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    registry.faults = deque([Fault(), Fault(whole=True, cut_after=65536), Fault(whole=True, cut_after=65536)])
    await pull(puller, registry)
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) * 1.1


async def test_what_is_there_is_kept_where_the_registry_serves_no_parts_any_more(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    registry.faults = deque([Fault(), *[Fault(whole=True, cut_after=400_000)] * 30])
    with pytest.raises(RegistryError, match="giving up"):
        await pull(puller, registry)
    record = store.blobs.root / f"{Digest.parse(sha256(WEIGHTS)).file_name}.resume"
    assert json.loads(record.read_text().split("\n")[0])["done"] == [[0, 700_000]]
    registry.faults.clear()
    registry.ranges = False
    await pull(puller, registry)
    assert whole(store, registry)


async def test_a_drip_counts_as_a_stall(puller: Puller, store: ModelStore, registry: FaultyRegistry) -> None:
    puller.traffic.patience = Patience(stall=0.4, tries=3, pause=0.01, longest_pause=0.05)
    registry.faults = deque([Fault(drip=True)] * 2)
    statuses = [status async for status in puller.pull(name_at(registry), insecure=True)]
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) + 5000
    assert statuses[-1].status == "success"
    store.delete(name_at(registry))
    registry.faults = deque([Fault(drip=True)] * 40)
    with pytest.raises(
        RegistryError, match=r"giving up on sha256:.* failures: the registry sent \d+ bytes in"
    ):
        await pull(puller, registry)


async def test_a_slow_line_shows_progress(
    puller: Puller, registry: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a flush comes in a second; nobody shall think that it stands still."""
    monkeypatch.setattr(download, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(download, "FLUSH", 10_000_000)
    registry.faults = deque([Fault(drip=True)])
    puller.traffic.patience = Patience(stall=20)
    statuses = puller.pull(name_at(registry), insecure=True)
    async with asyncio.timeout(10):
        seen = set[int]()
        async for status in statuses:
            if status.digest == sha256(WEIGHTS):
                seen.add(status.completed)
            if len(seen) >= 4:
                break
    await statuses.aclose()
    assert max(seen) < 100_000


async def test_wrong_bytes(puller: Puller, store: ModelStore, registry: FaultyRegistry) -> None:
    registry.faults = deque([Fault(flip=True)] * 3)
    with pytest.raises(RegistryError, match="digest mismatch, file must be downloaded again: want sha256:"):
        await pull(puller, registry)
    # Layers that were still on their way when the weights failed may have kept what came.
    weights = Digest.parse(sha256(WEIGHTS)).file_name
    assert [name for name in os.listdir(store.blobs.root) if name.startswith(weights)] == []
    await pull(puller, registry)
    assert whole(store, registry)


async def test_a_pull_right_after_one_that_failed_does_not_repeat_its_error(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    manifest, registry.manifest = registry.manifest, b"[]"
    statuses = puller.pull(name_at(registry), insecure=True)
    await anext(statuses)
    ((key, failing),) = puller._jobs.items()
    with pytest.raises(ModelsError):
        async for _ in statuses:
            pass
    # The event loop may come to the next caller before it takes the ended job from the list.
    puller._jobs[key] = failing
    registry.manifest = manifest
    await pull(puller, registry)
    assert whole(store, registry)


async def test_a_size_that_is_not_the_manifests(puller: Puller, registry: FaultyRegistry) -> None:
    document = json.loads(registry.manifest)
    document["layers"][0]["size"] -= 1000
    registry.manifest = json.dumps(document).encode()
    with pytest.raises(RegistryError, match="the manifest says 2999000"):
        await pull(puller, registry)


async def test_redirect_does_not_take_the_token_along(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    digest = sha256(WEIGHTS)
    with serving(FaultyRegistry(registry.blobs, b"")) as storage:

        def authorize(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
            if path.startswith("/token"):
                return 200, {}, b'{"token":"t0ken"}'
            if headers.get("authorization") != "Bearer t0ken":
                realm = f'Bearer realm="{registry.url}/token",service="s",scope="repository:some/model:pull"'
                return 401, {"WWW-Authenticate": realm}, b"{}"
            if path.endswith(digest):
                return 307, {"Location": f"{storage.url}/blobs/{digest}"}, b""
            return None

        registry.authorize = authorize
        await pull(puller, registry)
        assert whole(store, registry)
        assert storage.sent == len(WEIGHTS)
        assert all("authorization" not in headers for _, _, headers in storage.requests)
    (asked,) = [path for _, path, _ in registry.requests if path.startswith("/token")][:1]
    assert "service=s&scope=repository%3Asome%2Fmodel%3Apull&ts=" in asked
    key, _, signature = registry.of("GET", "/token")[0]["authorization"].partition(":")
    assert key.startswith("AAAAC3NzaC1lZDI1NTE5") and len(signature) == 88


async def test_a_password_goes_to_no_host_that_was_not_named(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    login = Credential("someone", "a secret")
    puller.credentials.save(registry.host, login)
    with serving(FaultyRegistry({}, b"")) as elsewhere:
        elsewhere.authorize = lambda path, headers: (200, {}, b'{"token":"t0ken"}')
        realm = elsewhere.url.replace("127.0.0.1", "localhost") + "/token"

        def authorize(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
            if headers.get("authorization") == "Bearer t0ken":
                return None
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}, b"{}"

        registry.authorize = authorize
        with pytest.raises(RegistryError, match="wants its password sent to localhost") as caught:
            await pull(puller, registry)
        assert caught.value.fix == f"llm-engine login {registry.host} --token-server localhost"
        assert elsewhere.requests == []
        puller.credentials.save(registry.host, replace(login, token_server="localhost"))
        await pull(puller, registry)
        assert whole(store, registry)
        assert elsewhere.requests[0][2]["authorization"] == login.basic


@pytest.mark.parametrize(
    ("registry_host", "realm", "may"),
    [
        ("reg.example:5000", "https://reg.example:5001/token", True),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("registry-1.docker.io", "https://auth.docker.io/token", True),
        ("docker.io", "https://auth.docker.io/token", True),
        ("reg.example", "https://auth.reg.example/token", True),
        ("reg.example.com", "https://auth.example.com/token", False),
        ("reg.example", "https://evilreg.example/token", False),
        ("reg.example", "https://example/token", False),
        ("reg.example", "https://reg.example@evil.example/token", False),
        ("docker.io.evil.example", "https://auth.docker.io/token", False),
    ],
)
def test_who_may_know_a_password(registry_host: str, realm: str, may: bool) -> None:
    challenge = Challenge.parse(f'Bearer realm="{realm}"')
    assert challenge.may_know_password(registry_host, "") is may
    assert challenge.may_know_password(registry_host, urlsplit(realm).hostname or "")


def test_a_token_is_not_asked_for_in_clear_text() -> None:
    for realm in ("http://reg.example/token", "/token", "ftp://reg.example/", ""):
        with pytest.raises(RegistryError, match="no https address"):
            Challenge.parse(f'Bearer realm="{realm}"').check_realm(insecure=False)
    Challenge.parse('Bearer realm="http://reg.example/token"').check_realm(insecure=True)
    Challenge.parse('Bearer realm="https://reg.example/token"').check_realm(insecure=False)


async def test_unauthorized_says_what_to_do(puller: Puller, registry: FaultyRegistry) -> None:
    registry.authorize = lambda path, headers: (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}")
    with pytest.raises(RegistryError, match="unauthorized") as caught:
        await pull(puller, registry)
    assert caught.value.fix == f"llm-engine login {registry.host}"


async def test_http_only_when_it_is_allowed(puller: Puller, registry: FaultyRegistry) -> None:
    with pytest.raises(RegistryError, match="insecure protocol http"):
        async for _ in puller.pull(Name.parse(f"http://{registry.host}/some/model")):
            pass
    assert registry.requests == []


async def test_unknown_model(puller: Puller, registry: FaultyRegistry) -> None:
    registry.authorize = lambda path, headers: (404, {}, b"{}")
    with pytest.raises(RegistryError, match=r"^pull model manifest: file does not exist$"):
        await pull(puller, registry)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"layers":[]}', b"x" * (5 << 20)], ids=range(5))
async def test_manifests_that_are_none(puller: Puller, registry: FaultyRegistry, raw: bytes) -> None:
    registry.manifest = raw
    with pytest.raises(Exception, match="manifest"):
        await pull(puller, registry)


async def test_pinned(puller: Puller, store: ModelStore, registry: FaultyRegistry) -> None:
    right = sha256(registry.manifest)
    await pull(puller, registry, f"@{right}")
    assert whole(store, registry)
    with pytest.raises(RegistryError, match=f"is {right}, not sha256:0000"):
        await pull(puller, registry, f"@sha256:{'0' * 64}")


async def test_callers_share_one_transfer(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    answers = await asyncio.gather(*(pull(puller, registry) for _ in range(5)))
    assert all(statuses[-1].status == "success" for statuses in answers)
    assert len(registry.of("GET", "/manifests/")) == 1
    assert registry.sent < len(WEIGHTS) + 5000


async def test_the_last_caller_to_go_ends_it(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    registry.rate = 400_000
    first, second = (puller.pull(name_at(registry), insecure=True) for _ in range(2))
    assert (await anext(first)).status == (await anext(second)).status == "pulling manifest"
    while registry.sent < 200_000:
        await anext(first)
    await first.aclose()
    at = registry.sent
    while registry.sent < at + 200_000:
        await anext(second)
    await second.aclose()
    assert puller._jobs == {} and puller._blobs == {}
    registry.rate = 0
    sent = registry.sent
    await pull(puller, registry)
    assert whole(store, registry)
    assert sent + (registry.sent - sent) < len(WEIGHTS) * 1.6


async def test_full_disk_is_told_before_anything_is_fetched(
    puller: Puller, store: ModelStore, registry: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "RESERVE", 1 << 60)
    with pytest.raises(StoreFull, match="no space left"):
        await pull(puller, registry)
    assert registry.sent == 0


async def test_a_download_that_ollama_began_goes_on(
    puller: Puller, store: ModelStore, registry: FaultyRegistry
) -> None:
    store.blobs.root.mkdir(parents=True)
    begun = store.blobs.root / (Digest.parse(sha256(WEIGHTS)).file_name + "-partial")
    begun.write_bytes(WEIGHTS[:1_000_000] + bytes(len(WEIGHTS) - 1_000_000))
    begun.with_name(begun.name + "-0").write_text('{"N":0,"Offset":0,"Size":2000000,"Completed":1000000}')
    begun.with_name(begun.name + "-1").write_text('{"N":1,"Offset":2000000,"Size":1000000,"Completed":0}')
    await pull(puller, registry)
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) - 990_000


async def test_bandwidth_limit(store: ModelStore, registry: FaultyRegistry) -> None:
    puller = Puller(store, traffic=Traffic(rate=RateLimit(3_000_000), patience=QUICK))
    start = time.monotonic()
    await pull(puller, registry)
    assert time.monotonic() - start > 0.8
    await puller.close()


PULL = """
import asyncio, sys
from pathlib import Path
from llm_engine.models.names import Name
from llm_engine.models.registry import download
from llm_engine.models.registry.pull import Puller
from llm_engine.models.store import ModelStore

download.PART, download.FLUSH = 700_000, 50_000

async def main():
    puller = Puller(ModelStore(Path(sys.argv[1])))
    async for status in puller.pull(Name.parse(sys.argv[2]), insecure=True):
        print(status.status, flush=True)
    await puller.close()

asyncio.run(main())
"""


def test_killed_again_and_again(store: ModelStore, registry: FaultyRegistry) -> None:
    """Each kill loses a flush and what is on its way for each connection, and nothing else."""
    registry.rate = 300_000
    command = [sys.executable, "-c", PULL, str(store.root), f"{registry.host}/some/model"]
    chance = random.Random(1)
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        target = registry.sent + chance.randrange(100_000, 500_000)
        deadline = time.monotonic() + 60
        while registry.sent < target and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
        child.wait()
    registry.rate = 0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert whole(store, registry)
    lost = registry.sent - len(WEIGHTS)
    assert lost < 3 * 5 * (50_000 + 2 * 65536 + 131072), lost


def test_a_second_process_goes_on_where_a_killed_one_stopped(
    store: ModelStore, registry: FaultyRegistry
) -> None:
    registry.rate = 500_000
    command = [sys.executable, "-c", PULL, str(store.root), f"{registry.host}/some/model"]
    first, second = (subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2))
    deadline = time.monotonic() + 60
    while registry.sent < 1_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.wait()
    registry.rate = 0
    assert second.wait(60) == 0
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) * 1.5


def test_two_processes_pull_one_model(store: ModelStore, registry: FaultyRegistry) -> None:
    registry.rate = 2_000_000
    command = [sys.executable, "-c", PULL, str(store.root), f"{registry.host}/some/model"]
    children = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert whole(store, registry)
    assert registry.sent < len(WEIGHTS) + 5000


async def test_after_a_loss_of_power_only_what_had_reached_the_disk_counts(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = random.Random(2).randbytes(3_000_000)
    monkeypatch.setattr(partial, "SYNC_EVERY", 1_000_000)

    def opened() -> Partial:
        part = Partial(store.blobs, Digest.of(data), len(data))
        part.open()
        return part

    part = opened()
    await part.write(0, data[:1_200_000])
    await part.hash_on()  # which syncs, and so makes what is there durable
    await part.write(1_200_000, data[1_200_000:1_500_000])
    await part.write(2_000_000, data[2_000_000:])
    part.close()
    part = opened()  # a killed process
    assert part.ranges.spans == [(0, 1_500_000), (2_000_000, 3_000_000)]
    part.close()
    monkeypatch.setattr(partial, "BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another one\n")
    part = opened()  # a machine that was off meanwhile: the rest of the file may be zeros
    assert part.ranges.spans == [(0, 1_200_000)]
    await part.write(1_200_000, data[1_200_000:])
    assert await part.finish() == part.digest
    part.close()


def test_whoever_looks_at_ranges_sees_one_state_of_them() -> None:
    size, step = 200_000, 10
    ranges, seen = Ranges(), []
    order = list(range(0, size, step))
    random.Random(3).shuffle(order)
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(lambda: [ranges.add(at, at + step) for at in order[:2000]])
        while not adding.done():
            total, prefix = ranges.total, ranges.prefix
            gaps = ranges.gaps(size)
            assert 0 <= prefix <= size and total % step == prefix % step == 0
            assert all(start < end for start, end in gaps) and gaps == sorted(gaps)
            seen.append(total)
    assert adding.result() is not None
    assert seen == sorted(seen) and ranges.total == 2000 * step


def test_ranges_join_and_leave_gaps() -> None:
    ranges = Ranges([(10, 20), (0, 5), (5, 10), (30, 40), (35, 36), (50, 50)])
    assert ranges.spans == [(0, 20), (30, 40)]
    assert (ranges.total, ranges.prefix) == (30, 20)
    assert ranges.gaps(100) == [(20, 30), (40, 100)]
    assert ranges.missing(0, 100) == ranges.gaps(100)
    assert ranges.missing(15, 35) == [(20, 30)]
    assert ranges.missing(22, 28) == [(22, 28)]
    assert ranges.missing(31, 39) == ranges.missing(0, 20) == []
    assert ranges.gaps(15) == [] and ranges.gaps(25) == [(20, 25)]
    assert Ranges().gaps(0) == []


@pytest.mark.parametrize(
    ("text", "rate"), [("", 0), ("50MB", 50_000_000), ("1.5g", 1_500_000_000), ("800K/s", 800_000)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "-1", "1X"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)
