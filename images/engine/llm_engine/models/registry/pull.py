"""Pulling a model: the manifest, all of its layers at once, then the name.

Callers who want the same model share one transfer, and callers of different models share the layers that
these have in common; a transfer ends when the last of them has gone. Nothing appears under the name before
everything is there."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llm_engine.models.digests import Digest
from llm_engine.models.errors import RegistryError
from llm_engine.models.manifests import MAX_MANIFEST, Layer, Manifest
from llm_engine.models.names import Name
from llm_engine.models.registry import hub
from llm_engine.models.registry.client import Registry, new_session, transient
from llm_engine.models.registry.credentials import Credentials
from llm_engine.models.registry.download import Download, Traffic, describe
from llm_engine.models.registry.together import together
from llm_engine.models.status import Status
from llm_engine.models.store import ModelStore

if TYPE_CHECKING:
    import aiohttp

K = TypeVar("K")
V = TypeVar("V")
TICK = 0.06  # how often a caller hears of each layer: Ollama's pace


@dataclass
class _Layer:
    digest: Digest
    size: int
    completed: int = 0


@dataclass
class _Shared:
    """Something that several wait for: cancelled when the last of them goes."""

    task: asyncio.Task[None]
    waiters: int = 0


@dataclass
class _Job:
    name: Name
    insecure: bool
    layers: list[_Layer] = field(default_factory=list)
    outdated: Sequence[Digest] = ()
    """What the name meant before and means no longer."""


class Puller:
    """All pulls of a server. `close` ends them."""

    def __init__(
        self,
        store: ModelStore,
        *,
        traffic: Traffic | None = None,
        credentials: Credentials | None = None,
        session: Callable[[], aiohttp.ClientSession] = new_session,
    ) -> None:
        self.store = store
        self.traffic = traffic or Traffic()
        self.credentials = credentials or Credentials()
        self._session_factory = session
        self._session: aiohttp.ClientSession | None = None
        self._jobs: dict[tuple[object, ...], tuple[_Job, _Shared]] = {}
        self._blobs: dict[Digest, tuple[_Layer, _Shared]] = {}

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = self._session_factory()
        return self._session

    async def close(self) -> None:
        shared = [job[1] for job in self._jobs.values()] + [blob[1] for blob in self._blobs.values()]
        for item in shared:
            item.task.cancel()
        await asyncio.gather(*(item.task for item in shared), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def pull(self, name: Name, *, insecure: bool = False) -> AsyncGenerator[Status, None]:
        """Statuses until `success`; RegistryError and its like. Closing the generator leaves the pull."""
        key = (name.key, name.scheme, name.pin, insecure)
        known = self._jobs.get(key)
        # One that has just ended may still be listed: joining it would repeat its error.
        if known is None or known[1].task.done():
            job = _Job(name, insecure)
            task = _shared(self._run(job), f"pull {name.short}")
            known = self._jobs[key] = (job, _Shared(task))
            task.add_done_callback(lambda task: _forget(self._jobs, key, task))
        job, shared = known
        async with _waiting(shared):
            async for status in _watch(job, shared.task):
                yield status
        await shared.task
        if job.outdated and self.store.prunes:
            yield Status("removing unused layers")
        yield Status("success")

    async def _run(self, job: _Job) -> None:
        registry = Registry(self.session, job.name, job.insecure, self.credentials)
        try:
            raw = await self._manifest(registry)
        except RegistryError as error:
            if not hub.refuses_shards(registry, error):
                raise
            await self._shards(registry, job)
            return
        if job.name.pin and str(Digest.of(raw)) != job.name.pin:
            raise RegistryError(
                f"pull model manifest: {job.name.short} is {Digest.of(raw)}, not {job.name.pin}"
            )
        manifest = Manifest.parse(raw, job.name.short)
        with contextlib.ExitStack() as held:
            await asyncio.to_thread(
                held.enter_context, self.store.keeping(layer.digest for layer in manifest.everything)
            )
            await self._fetch_all(registry, job, manifest.everything)
            await self._name(job, manifest)

    async def _shards(self, registry: Registry, job: _Job) -> None:
        """A model that its registry has in shards only, and does not give out."""
        shards = await hub.find(registry)
        registry.addresses = shards.addresses
        with contextlib.ExitStack() as held:
            digests = [layer.digest for layer in shards.layers]
            await asyncio.to_thread(held.enter_context, self.store.keeping(digests))
            await self._fetch_all(registry, job, shards.layers)
            manifest, config = await asyncio.to_thread(hub.manifest, self.store, shards)
            if job.name.pin and str(manifest.digest) != job.name.pin:
                raise RegistryError(
                    f"pull model manifest: {job.name.short} is {manifest.digest}, not {job.name.pin}"
                )
            await asyncio.to_thread(held.enter_context, self.store.keeping([Digest.of(config)]))
            await asyncio.to_thread(self.store.blobs.add, config)
            await self._name(job, manifest)

    async def _fetch_all(self, registry: Registry, job: _Job, layers: Sequence[Layer]) -> None:
        unique = {layer.digest: layer for layer in layers}
        # The weights first: clients show the lines in this order.
        job.layers = [_Layer(layer.digest, layer.size) for layer in unique.values()]
        async with together() as group:
            for layer in job.layers:
                group.create_task(self._fetch(registry, layer))

    async def _name(self, job: _Job, manifest: Manifest) -> None:
        job.outdated = await asyncio.to_thread(self.store.replace, job.name, manifest)
        await asyncio.to_thread(self.store.remove_unused, job.outdated)

    async def _manifest(self, registry: Registry) -> bytes:
        import aiohttp

        failures = 0
        while True:
            try:
                raw = await registry.manifest()
                break
            except Exception as error:
                failures += 1
                # A host that is not there is told at once: nothing has been fetched that waiting could save.
                absent = isinstance(error, aiohttp.ClientConnectorError)
                if absent or not transient(error) or failures >= self.traffic.patience.tries:
                    raise RegistryError(
                        f"pull model manifest: {describe(error)}", fix=getattr(error, "fix", None)
                    ) from error
                await asyncio.sleep(self.traffic.patience.after(failures))
        if len(raw) > MAX_MANIFEST:
            raise RegistryError(f"pull model manifest: larger than {MAX_MANIFEST} bytes")
        return raw

    async def _fetch(self, registry: Registry, layer: _Layer) -> None:
        if self.store.blobs.has(layer.digest, layer.size):
            layer.completed = layer.size
            self.store.blobs.touch(layer.digest)
            return
        known = self._blobs.get(layer.digest)
        if known is None or known[1].task.done():

            def report(completed: int) -> None:
                owner.completed = completed

            owner = _Layer(layer.digest, layer.size)
            download = Download(self.store.blobs, registry, layer.digest, layer.size, self.traffic, report)
            task = _shared(download.run(), f"download {layer.digest.short}")
            known = self._blobs[layer.digest] = (owner, _Shared(task))
            task.add_done_callback(lambda task: _forget(self._blobs, layer.digest, task))
        owner, shared = known
        async with _waiting(shared):
            while not shared.task.done():
                layer.completed = owner.completed
                await asyncio.wait({shared.task}, timeout=TICK)
        await shared.task
        layer.completed = layer.size


def _shared(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """It may outlive the request that began it, so its log lines are in nobody's name."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())


def _forget(known: dict[K, tuple[V, _Shared]], key: K, task: asyncio.Task[None]) -> None:
    """Takes an ended task from a list, unless another one has its place."""
    if key in known and known[key][1].task is task:
        del known[key]


@contextlib.asynccontextmanager
async def _waiting(shared: _Shared) -> AsyncGenerator[None, None]:
    shared.waiters += 1
    try:
        yield
    finally:
        shared.waiters -= 1
        if not shared.waiters and not shared.task.done():
            shared.task.cancel()
            # What it holds (locks, files) is free when we are gone.
            await asyncio.wait({shared.task})


async def _watch(job: _Job, task: asyncio.Task[None]) -> AsyncGenerator[Status, None]:
    """What a caller hears while the job runs; each stage once, each layer while it changes."""
    yield Status("pulling manifest")
    told: dict[Digest, int] = {}
    while True:
        finished = task.done()
        for layer in job.layers:
            if told.get(layer.digest) != layer.completed:
                told[layer.digest] = layer.completed
                yield Status(f"pulling {layer.digest.short}", str(layer.digest), layer.size, layer.completed)
        if finished:
            break
        await asyncio.wait({task}, timeout=TICK)
    if not task.cancelled() and task.exception() is None:
        yield Status("verifying sha256 digest")
        yield Status("writing manifest")
