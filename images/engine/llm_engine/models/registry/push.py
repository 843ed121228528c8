"""Pushing a model: each layer the registry lacks, several at once, then the manifest.

An upload goes in chunks that follow each other, as the Docker protocol wants it; Ollama's own registry
answers a chunk with the address of a storage, and then chunks travel to it in parallel. After a failure the
registry is asked how far the upload had come."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from llm_engine.models.errors import RegistryError
from llm_engine.models.manifests import MANIFEST_TYPE, Layer, Manifest
from llm_engine.models.model import Model
from llm_engine.models.names import Name
from llm_engine.models.registry.client import Registry, raise_for, transient
from llm_engine.models.registry.download import Traffic, describe
from llm_engine.models.registry.pull import TICK, Puller
from llm_engine.models.registry.together import together
from llm_engine.models.status import Status

CHUNK = 32 * 1024 * 1024
STALL = 60.0
LAYERS_AT_ONCE = 4
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


@dataclass
class _Upload:
    layer: Layer
    path: Path
    completed: int = 0


async def push(
    puller: Puller, model: Model, *, insecure: bool = False, name: Name | None = None
) -> AsyncGenerator[Status, None]:
    """Statuses until `success`; the session, the credentials and the limits are those of the pulls."""
    yield Status("retrieving manifest")
    registry = Registry(puller.session, name or model.name, insecure, puller.credentials)
    unique = {layer.digest: layer for layer in model.manifest.everything}
    uploads = [_Upload(layer, model.blobs.path(layer.digest)) for layer in unique.values()]
    task = asyncio.create_task(_run(registry, puller.traffic, uploads, model.manifest))
    told: dict[Layer, int] = {}
    try:
        while True:
            finished = task.done()
            for upload in uploads:
                if told.get(upload.layer, 0) != upload.completed:
                    told[upload.layer] = upload.completed
                    digest = upload.layer.digest
                    yield Status(f"pushing {digest.short}", str(digest), upload.layer.size, upload.completed)
            if finished:
                break
            await asyncio.wait({task}, timeout=TICK)
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    yield Status("pushing manifest")
    yield Status("success")


async def _run(registry: Registry, traffic: Traffic, uploads: list[_Upload], manifest: Manifest) -> None:
    places = asyncio.Semaphore(LAYERS_AT_ONCE)

    async def one(upload: _Upload) -> None:
        async with places:
            await _Pusher(registry, traffic, upload).run()

    async with together() as group:
        for upload in uploads:
            group.create_task(one(upload))
    url = f"manifests/{registry.name.tag}"
    headers = {"Content-Type": MANIFEST_TYPE}
    async with registry.request("PUT", url, headers=headers, data=manifest.raw, stall=STALL) as response:
        await raise_for(response)


class _Pusher:
    def __init__(self, registry: Registry, traffic: Traffic, upload: _Upload) -> None:
        self.registry = registry
        self.traffic = traffic
        self.upload = upload
        self.location = ""
        self.sums: list[bytes] = []
        """Of each chunk that went to a storage: the end of the upload names them all."""

    async def run(self) -> None:
        if not self.upload.path.is_file():
            raise RegistryError(
                f"cannot push: blob {self.upload.layer.digest} is missing", fix="llm-engine doctor"
            )
        failures = 0
        while True:
            before = self.upload.completed
            try:
                if not await self._exists() and not (not self.location and await self._begin()):
                    await self._send()
                self.upload.completed = self.upload.layer.size
                return
            except Exception as error:
                import aiohttp

                if self.sums:
                    # What a storage has of an upload cannot be asked: it begins anew.
                    self._forget()
                failures = 1 if self.upload.completed > before else failures + 1
                # A host that is not there is told at once: nothing has been sent that waiting could save.
                absent = isinstance(error, aiohttp.ClientConnectorError) and not self.upload.completed
                lasting = absent or not transient(error)
                if lasting or failures >= self.traffic.patience.tries:
                    if lasting:
                        raise (
                            error if isinstance(error, RegistryError) else RegistryError(describe(error))
                        ) from error
                    raise RegistryError(
                        f"giving up on pushing {self.upload.layer.digest} after {failures} failures: "
                        f"{describe(error)}"
                    ) from error
                await asyncio.sleep(self.traffic.patience.after(failures))

    async def _exists(self) -> bool:
        async with self.registry.request(
            "HEAD", f"blobs/{self.upload.layer.digest}", stall=STALL, follow=True
        ) as response:
            if response.status == 404:
                return False
            await raise_for(response)
            return True

    async def _begin(self) -> bool:
        """Opens an upload; True when the registry took the blob over from another repository."""
        query = ""
        if self.upload.layer.origin:
            origin = Name.parse(self.upload.layer.origin)
            source = f"{origin.namespace}/{origin.model}"
            query = "?" + urlencode({"mount": str(self.upload.layer.digest), "from": source})
        async with self.registry.request("POST", f"blobs/uploads/{query}", stall=STALL) as response:
            await raise_for(response)
            self._follow(
                response.headers.get("Docker-Upload-Location") or response.headers.get("Location", "")
            )
            self.upload.completed = 0
            return response.status == 201

    def _follow(self, location: str | None) -> None:
        if not location:
            raise RegistryError("the registry gives no address for an upload")
        self.location = urljoin(self.registry.base, location)

    async def _send(self) -> None:
        offset = await self._resume_at() if self.upload.completed else 0
        size = self.upload.layer.size
        places = asyncio.Semaphore(self.traffic.parallel)
        async with together() as group:
            while offset < size:
                end = min(offset + CHUNK, size)
                data = await asyncio.to_thread(_read, self.upload.path, offset, end - offset)
                storage = await self._patch(offset, end, data)
                if storage:
                    await places.acquire()
                    self.sums.append(hashlib.md5(data, usedforsecurity=False).digest())
                    group.create_task(self._store(storage, data, places))
                else:
                    self.upload.completed = end
                offset = end
        await self._commit()

    async def _patch(self, start: int, end: int, data: bytes) -> str:
        """Sends one chunk, or is told where to: the address of a storage."""
        await self.traffic.rate.take(len(data))
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(data)),
            "Content-Range": f"{start}-{end - 1}",
            "X-Redirect-Uploads": "1",
        }
        async with self.registry.request(
            "PATCH", self.location, headers=headers, data=data, stall=STALL
        ) as response:
            if response.status == 416:
                # We and the registry do not agree on how far we are: begin anew.
                self._forget()
                raise RegistryError("the registry lost part of the upload", http_status=416, retryable=True)
            storage = response.headers.get("Location", "") if response.status == 307 else ""
            if not storage:
                await raise_for(response)
            self._follow(
                response.headers.get("Docker-Upload-Location") or response.headers.get("Location", "")
            )
            return storage

    async def _store(self, url: str, data: bytes, places: asyncio.Semaphore) -> None:
        failures = 0
        try:
            while True:
                try:
                    async with self.registry.request("PUT", url, data=data, stall=STALL) as response:
                        await raise_for(response)
                    break
                except Exception as error:
                    failures += 1
                    if not transient(error) or failures >= self.traffic.patience.tries:
                        raise
                    await asyncio.sleep(self.traffic.patience.after(failures))
            self.upload.completed += len(data)
        finally:
            places.release()

    def _forget(self) -> None:
        self.location, self.sums = "", []
        self.upload.completed = 0

    async def _resume_at(self) -> int:
        """How many bytes of a broken upload the registry has."""
        async with self.registry.request("GET", self.location, stall=STALL) as response:
            found = _RANGE.fullmatch(response.headers.get("Range", ""))
            if response.status != 204:
                self._forget()
                await self._begin()
                return 0
            # "0-0" is what registries say for an empty upload as well; one byte sent twice is refused, so
            # begin there.
            have = int(found[1]) + 1 if found and int(found[1]) else 0
            self.upload.completed = have
            self._follow(response.headers.get("Location", self.location))
            return have

    async def _commit(self) -> None:
        query = {"digest": str(self.upload.layer.digest)}
        if self.sums:
            joined = hashlib.md5(b"".join(self.sums), usedforsecurity=False).hexdigest()
            query["etag"] = f"{joined}-{len(self.sums)}"
        separator = "&" if urlsplit(self.location).query else "?"
        url = f"{self.location}{separator}{urlencode(query)}"
        async with self.registry.request("PUT", url, data=b"", stall=STALL) as response:
            try:
                await raise_for(response)
            except RegistryError:
                self._forget()
                raise


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise RegistryError(f"{path.name} became shorter while it was pushed")
    return data
