"""A stack that is not up, with data of a web UI: enough to back up and restore for real."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import yaml

from stackctl.config import load_with_origins
from stackctl.operations.context import Stack, open_stack
from stackctl.runtime.secrets import SecretStore


def make_stack(folder: Path, **backup: object) -> Stack:
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "name": "bk",
        "runtime": "local",
        "services": {"engine": {"port": 1}, "webui": {"enabled": True, "port": 2}},
        "backup": backup,
    }
    path = folder / "stack.yaml"
    path.write_text(yaml.safe_dump(document))
    stack = open_stack(load_with_origins(str(path)), lambda _text: None)
    data = stack.config.data_path / "webui"
    (data / "uploads").mkdir(parents=True)
    (data / "cache").mkdir()
    (data / "uploads" / "paper.txt").write_text("words " * 1000)
    (data / "uploads" / "noise").write_bytes(bytes(range(256)) * 40)
    (data / "cache" / "again").write_text("can be made again")
    with sqlite3.connect(data / "webui.db") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE chat (said TEXT)")
        database.execute("INSERT INTO chat VALUES ('remember me')")
    SecretStore(stack.name).set("webui_secret_key", "a-very-secret-value")
    return stack


def said(stack: Stack) -> list[str]:
    with sqlite3.connect(stack.config.data_path / "webui" / "webui.db") as database:
        return [row[0] for row in database.execute("SELECT said FROM chat")]
