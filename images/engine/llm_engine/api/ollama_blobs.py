"""HEAD and POST /api/blobs/sha256:...: how files reach the server before a model is made of them."""

from __future__ import annotations

import asyncio

from llm_engine.api.endpoint import Call, Reply
from llm_engine.api.errors import ApiError, bad_request
from llm_engine.models.blobs import BlobWriter
from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidDigest, ModelsError
from llm_engine.models.store import ModelStore

WRITE_CHUNK = 1024 * 1024


def parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        raise bad_request("invalid digest format") from None


def _promise(store: ModelStore, digest: Digest, size: int | None = None) -> bool:
    """Whether the blob is there, whole; if so it stays until a model is made of it."""
    with store.keeping([digest]):
        if not store.has_whole(digest, size):
            return False
        store.blobs.touch(digest)
        store.promised.keep(digest)
    return True


def _commit(store: ModelStore, writer: BlobWriter, digest: Digest) -> None:
    with store.keeping([digest]):
        writer.commit(digest)
        store.promised.keep(digest)


async def head(call: Call) -> Reply:
    digest = parse_digest(call.path_params["digest"])
    there = await asyncio.to_thread(_promise, call.engine.models.store, digest)
    return Reply(status=200 if there else 404, media_type=None)


async def upload(call: Call) -> Reply:
    """The bytes go to disk as they come; wrong ones are not kept."""
    digest = parse_digest(call.path_params["digest"])
    store = call.engine.models.store
    length = "" if call.headers.get("content-encoding") else call.headers.get("content-length", "")
    if await asyncio.to_thread(_promise, store, digest, int(length) if length.isdecimal() else None):
        return Reply(media_type=None)
    try:
        with store.blobs.writer() as writer:
            buffer = bytearray()
            async for chunk in call.body_stream():
                buffer += chunk
                if len(buffer) >= WRITE_CHUNK:
                    data, buffer = buffer, bytearray()
                    await asyncio.to_thread(writer.write, bytes(data))
            await asyncio.to_thread(writer.write, bytes(buffer))
            await asyncio.to_thread(_commit, store, writer, digest)
    except ModelsError as error:
        raise ApiError(error.status, str(error)) from None
    return Reply(status=201, media_type=None)
