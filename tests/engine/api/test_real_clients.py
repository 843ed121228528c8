"""The official clients, in Python and JavaScript, against a running engine: chat, stream, tools, structured
output, embeddings, an unknown model, and a stream that is given up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.engine import EngineServer
from tests.support.gates import refuse

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "tests" / "peers" / "clients"
PEERS = ROOT / ".venv-peers"
PYTHON = [
    "ollama",
    "openai",
    "anthropic",
    "langchain_ollama",
    "langchain_openai",
    "llama_index",
    "litellm",
    "instructor",
]

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def installed() -> None:
    if not (PEERS / ".stamp").exists():
        refuse("the clients are not installed (scripts/setup-peers installs them)", "REQUIRE_PEERS")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("client", PYTHON)
def test_python_client(engine: EngineServer, client: str) -> None:
    run(PEERS / "bin" / "python", CLIENTS / f"use_{client}.py", engine.url)


@pytest.mark.parametrize("client", ["ollama", "openai", "anthropic"])
def test_javascript_client(engine: EngineServer, client: str) -> None:
    node = shutil.which("node")
    if node is None or not (PEERS / "npm" / "node_modules").exists():
        refuse("no Node.js (apt-get install nodejs npm, then scripts/setup-peers)", "REQUIRE_PEERS")
    assert node is not None
    # Modules are found from where the script lies.
    script = PEERS / "npm" / "use_npm.mjs"
    script.write_bytes((CLIENTS / "use_npm.mjs").read_bytes())
    run(node, script, engine.url, client, cwd=PEERS / "npm")
