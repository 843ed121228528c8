"""Health of a local service: an HTTP answer, an open port, or a command that exits 0. Each within four
seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 4.0


@dataclass(frozen=True)
class Finding:
    ok: bool
    text: str = ""


async def probe(check: dict[str, Any], environment: Mapping[str, str]) -> Finding:
    """A command is run with the environment of the service, as in a container."""
    try:
        async with asyncio.timeout(TIMEOUT):
            if "http" in check:
                return await _http(check["http"])
            if "tcp" in check:
                _, writer = await asyncio.open_connection("127.0.0.1", check["tcp"])
                writer.close()
                return Finding(True)
            return await _command(check["argv"], environment)
    except TimeoutError:
        return Finding(False, f"no answer within {TIMEOUT:g} s")
    except OSError as error:
        return Finding(False, str(error.strerror or error))
    except ValueError as error:  # no HTTP at all: a line without an end
        return Finding(False, f"its answer cannot be read: {error}")


async def _http(url: str) -> Finding:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").strip()
        code = line.split(" ")[1] if " " in line else "nothing"
        return Finding(code.startswith("2"), f"{parts.path} answered {code}")
    finally:
        writer.close()


async def _command(argv: list[str], environment: Mapping[str, str]) -> Finding:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return Finding(
        process.returncode == 0, f"exit {process.returncode}: {out.decode('utf-8', 'replace')[-200:]}"
    )
