"""HEAD and POST /api/blobs/sha256:...: how files reach the server before a model is made of them."""

from __future__ import annotations

import asyncio

from llm_engine.api.endpoint import Call, Reply
from llm_engine.api.errors import ApiError, bad_request
from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidDigest, ModelsError

WRITE_CHUNK = 1024 * 1024


def parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest:
        raise bad_request("invalid digest format") from None


async def head(call: Call) -> Reply:
    digest = parse_digest(call.path_params["digest"])
    there = await asyncio.to_thread(call.engine.models.store.blobs.has, digest)
    return Reply(status=200 if there else 404, media_type=None)


async def upload(call: Call) -> Reply:
    """The bytes go to disk as they come; wrong ones are not kept."""
    digest = parse_digest(call.path_params["digest"])
    blobs = call.engine.models.store.blobs
    if await asyncio.to_thread(blobs.has, digest):
        blobs.touch(digest)
        return Reply(media_type=None)
    try:
        with blobs.writer() as writer:
            buffer = bytearray()
            async for chunk in call.body_stream():
                buffer += chunk
                if len(buffer) >= WRITE_CHUNK:
                    data, buffer = buffer, bytearray()
                    await asyncio.to_thread(writer.write, bytes(data))
            await asyncio.to_thread(writer.write, bytes(buffer))
            await asyncio.to_thread(writer.commit, digest)
    except ModelsError as error:
        raise ApiError(error.status, str(error)) from None
    return Reply(status=201, media_type=None)
