"""The first `up` in a folder: a stack file with defaults, and a stand-in model, so that there is an answer at
once."""

from __future__ import annotations

import hashlib
import http.client
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import StackctlError
from stackctl.operations.context import Stack
from stackctl.operations.facts import find_program
from stackctl.runtime.command import run

DEMO = "demo"


def stack_name(folder: Path) -> str:
    """The folder's name, as far as a stack may be called so."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:40].strip("-") or "ai"


def ensure_model(stack: Stack) -> str | None:
    """The stand-in model, when the engine has no model and the config wants none. Returns its name when
    made."""
    client = stack.engine(timeout=120)
    if stack.config.models or client.tags():
        return None
    program = find_program("llm-engine")
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="stackctl-demo-") as folder:
        path = Path(folder) / "demo.gguf"
        run([program, "demo-model", str(path)], timeout=120)
        digest = upload(client, path)
    client.post("/api/create", {"model": DEMO, "files": {"demo.gguf": digest}, "stream": False}, timeout=120)
    stack.say(
        f"no model yet: made a stand-in called {DEMO} (it says one sentence; get a real one with models pull)"
    )
    return DEMO


def stand_in(stack: Stack) -> str | None:
    """The stand-in's name while it is the only model: it costs nothing to let it speak again."""
    if "engine" not in stack.config.services.enabled():
        return None
    names = [str(model["name"]) for model in stack.engine(timeout=30).tags()]
    return DEMO if names == [f"{DEMO}:latest"] else None


def upload(client: EngineClient, path: Path) -> str:
    """Give the engine a file as a blob; returns its digest."""
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        parts = urlsplit(client.base_url)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=600)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        try:
            connection.request("POST", f"/api/blobs/{digest}", file, headers)
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise StackctlError(f"the upload of {path.name} broke off: {error}") from error
        finally:
            connection.close()
    if response.status >= 400:
        raise EngineError(
            f"the engine refused {path.name}: {body[:200].decode(errors='replace')}", response.status
        )
    return digest


def first_words(stack: Stack, model: str) -> str:
    """What the model says to a greeting: the proof that the whole way works."""
    client = stack.engine(timeout=300)
    answer = client.post(
        "/api/chat",
        {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "stream": False,
         "options": {"num_predict": 64}},
        timeout=300,
    )  # fmt: skip
    return str(answer["message"]["content"]).strip()
