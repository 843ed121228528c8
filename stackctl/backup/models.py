"""The models of a backup on a host that lacks them: pulled again, and those made here made again.

Weights are not in a backup. A model that was made from another one comes back by its Modelfile, once the
other one is there; one that was made from a file of somebody's own needs that file, and is named.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stackctl.backup import archive
from stackctl.config.models import full_name
from stackctl.engine_api import EngineClient
from stackctl.errors import StackctlError
from stackctl.operations.facts import find_program
from stackctl.operations.models import pull
from stackctl.runtime.command import clean_environment, run


def member(name: str) -> str:
    """Where the Modelfile of a model is in a backup: no two names share a place."""
    return f"modelfiles/{quote(name, safe='')}.Modelfile"


@dataclass
class Recreated:
    there: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # name -> why


def recreate(
    backup: Path, manifest: Mapping[str, Any], client: EngineClient, say: Callable[[str], None]
) -> Recreated:
    """Those that others are made from first. One that cannot be had does not keep the others away."""
    done = Recreated()
    there = {str(model["name"]) for model in client.tags()}
    parents = {str(model["name"]): str(model.get("parent") or "") for model in manifest["models"]}
    for name in _parents_first(parents):
        if name in there:
            done.there.append(name)
            continue
        try:
            _one(backup, manifest, client, name, parents[name], there, say)
        except StackctlError as error:
            done.missing[name] = error.what
        else:
            done.made.append(name)
            there.add(name)
    return done


def _parents_first(parents: Mapping[str, str]) -> list[str]:
    ordered: list[str] = []

    def add(name: str, below: tuple[str, ...]) -> None:
        parent = _known(parents, name)
        if parent is not None and parent not in below:
            add(parent, (*below, name))
        if name not in ordered:
            ordered.append(name)

    for name in parents:
        add(name, ())
    return ordered


def _known(parents: Mapping[str, str], name: str) -> str | None:
    parent = parents[name] and full_name(parents[name])
    return parent if parent in parents and parent != name else None


def _one(
    backup: Path,
    manifest: Mapping[str, Any],
    client: EngineClient,
    name: str,
    parent: str,
    there: set[str],
    say: Callable[[str], None],
) -> None:
    if not parent:
        say(f"pulling {name}")
        pull(client, name, lambda _event: None)
        return
    if full_name(parent) not in there:
        say(f"pulling {parent}, which {name} is made from")
        pull(client, parent, lambda _event: None)
        there.add(full_name(parent))
    text = archive.read(backup, manifest, member(name)).decode()
    program = find_program("llm-engine")
    if program is None:
        raise StackctlError("the program llm-engine, which makes it from its Modelfile, is not here")
    say(f"making {name} from {parent}")
    with tempfile.TemporaryDirectory(prefix="stackctl-model-") as scratch:
        path = Path(scratch) / "Modelfile"
        path.write_text(_from(parent, text))
        environment = clean_environment({"OLLAMA_HOST": client.base_url})
        run([program, "create", name, "-f", str(path)], timeout=3600, env=environment)


def _from(parent: str, text: str) -> str:
    """The Modelfile with its FROM, which names files of the store that it came from, as that of its parent.
    Those lines stand first, after the comments; a FROM inside of a text is the text's."""
    lines = text.splitlines(keepends=True)
    first = next(
        (n for n, line in enumerate(lines) if line.strip() and not line.startswith(("#", "FROM "))),
        len(lines),
    )
    kept = [line for line in lines[:first] if not line.startswith("FROM ")]
    return "".join([*kept, f"FROM {parent}\n", *lines[first:]])
