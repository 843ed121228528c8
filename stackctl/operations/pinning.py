"""Writes a model's digest into the stack file, leaving every other byte of it as it is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from stackctl.config import Loaded
from stackctl.config.models import same_model
from stackctl.errors import UsageError


def pin(loaded: Loaded, name: str, digest: str) -> Path:
    """Change the entry of `name` in the file where it is written. Raises when it is written in a way we
    cannot edit."""
    index = next(
        (i for i, model in enumerate(loaded.config.models) if same_model(model.name) == same_model(name)),
        None,
    )
    if index is None:
        raise UsageError(f"{name} is not in models: of the stack file", fix=f"add it: models: [{name}]")
    digest = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    origin = loaded.origins[("models", index)]
    path = next(file for file in loaded.files if file.name == origin.file)
    lines = path.read_text().splitlines(keepends=True)
    if ("models", index, "digest") in loaded.origins:
        number = loaded.origins[("models", index, "digest")].line - 1
        edited = re.sub(r"(digest:\s*)[^\s,}]+", rf"\g<1>{digest}", lines[number])
    else:
        number = origin.line - 1
        edited = _with_digest(lines[number], loaded.config.models[index].name, digest)
    before = "".join(lines)
    lines[number] = edited
    after = "".join(lines)
    if not _holds(after, index, digest):
        raise UsageError(
            f"cannot edit {path}:{number + 1} safely", fix=f"write: - {{name: {name}, digest: {digest}}}"
        )
    if after != before:
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(after)
        aside.chmod(path.stat().st_mode & 0o777)
        aside.rename(path)
    return path


def _with_digest(line: str, name: str, digest: str) -> str:
    bare = re.match(r"^(\s*- )([\"']?)([^\s{\"'#]+)\2(\s*(#.*)?)$", line.rstrip("\n"))
    if bare and ":" not in bare[3].rpartition("/")[2].partition(":")[0] and not bare[3].endswith(":"):
        return f'{bare[1]}{{name: "{bare[3]}", digest: {digest}}}{bare[4]}\n'
    block = re.match(r"^(\s*)- name:", line)
    if block:
        return f"{line}{block[1]}  digest: {digest}\n"
    return line.replace("}", f", digest: {digest}}}", 1)


def _holds(text: str, index: int, digest: str) -> bool:
    """The edited file must say just what was meant; what it says otherwise is the loader's to check."""
    try:
        entry = yaml.safe_load(text)["models"][index]
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return False
    return isinstance(entry, dict) and entry.get("digest") == digest
