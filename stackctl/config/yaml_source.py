"""Reads a YAML file together with where each value stands, and without YAML 1.1's surprises.

Guarantees: a key that is written twice is an error; `no` and `22:22` stay text; `true`, numbers and null are
what they look like; every value's file and line can be told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackctl.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written; `variables` are the environment variables that went into it."""

    file: str
    line: int
    variables: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return where if not self.variables else f"{where} (${', $'.join(self.variables)})"


@dataclass(frozen=True)
class Source:
    """One file's data and the origin of every value and key in it."""

    data: dict[str, Any]
    origins: dict[KeyPath, Origin]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: PyYAML alone reads `22:22` as 1342 and `no` as false."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


# Ten times as fast, where PyYAML has it; what it says of a mistake is less clear, so that is not shown.
_Quick: Any = (
    type("_Quick", (yaml.CSafeLoader,), {"yaml_implicit_resolvers": _Loader.yaml_implicit_resolvers})
    if hasattr(yaml, "CSafeLoader")
    else _Loader
)

for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), ["" if c == "\0" else c for c in _first]
    )


def read(path: Path) -> Source:
    """The mapping in `path`; raises ConfigError that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", fix="stackctl init") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: byte {error.start} is not UTF-8") from error
    try:
        return _source(_Quick, text, path)
    except yaml.YAMLError:
        pass  # what is wrong is said better by the other one
    try:
        return _source(_Loader, text, path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        line = f": {shown}" if mark and (shown := _line(text, mark.line)) else ""
        raise ConfigError(
            f"{path} is not valid", problems=[f"{where}: {error.problem}{line}"], fix=_hint(error)
        ) from error
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        what = f"{path.name}:{number}: the character U+{error.character:04X} may not be in a YAML file"
        raise ConfigError(f"{path} is not valid", problems=[what], fix="take it out") from error


def _source(kind: Any, text: str, path: Path) -> Source:
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Source({}, {})
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"cannot use {path}: it must hold keys and values")
        origins: dict[KeyPath, Origin] = {}
        problems: list[str] = []
        _walk(loader, node, (), path.name, origins, problems)
        if problems:
            raise ConfigError(f"{path} is not valid", problems=problems)
        data: dict[str, Any] = loader.construct_document(node)
        return Source(data, origins)
    finally:
        loader.dispose()


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number].strip() if number < len(lines) else ""


def _hint(error: yaml.MarkedYAMLError) -> str:
    said = f"{error.context or ''} {error.problem or ''}"
    if "block mapping" in said or "block collection" in said:
        return "give all keys of one section the same indentation"
    if "simple key" in said or "mapping values" in said:
        return "write `key: value`, and quote a value that holds ': '"
    if "flow" in said:
        return "close every [ and {"
    if "cannot start any token" in said:
        return "indent with spaces, not tabs, and quote a value that begins with a sign"
    return "compare with stackctl config docs"


def _walk(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    path: KeyPath,
    file: str,
    origins: dict[KeyPath, Origin],
    problems: list[str],
) -> None:
    origins.setdefault(path, Origin(file, node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                problems.append(f"{file}:{line}: '<<' is not supported; use an overlay")
                continue
            key = str(loader.construct_object(key_node, deep=True))
            if key in seen:
                problems.append(f"{file}:{line}: {_dotted((*path, key))}: written twice")
            seen.add(key)
            origins[(*path, key)] = Origin(file, line)
            _walk(loader, value_node, (*path, key), file, origins, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(loader, item, (*path, index), file, origins, problems)


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)
