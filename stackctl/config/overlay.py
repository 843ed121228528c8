"""How stack.<name>.yaml is laid over stack.yaml, and how `${ENV}` is filled in.

The rules, which `docs/configuration.md` states for users: mappings are merged key by key; a list replaces the
whole list; `null` takes the key away, so that the default applies; anything else replaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stackctl.config.yaml_source import KeyPath, Origin, Source

_REFERENCE = re.compile(
    r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{[^}]*\}?))"
)


def merge(base: Source, over: Source) -> Source:
    origins = dict(base.origins)
    data = _merge(base.data, over.data, (), origins, over.origins)
    assert isinstance(data, dict)
    return Source(data, origins)


def _merge(
    base: Any, over: Any, path: KeyPath, origins: dict[KeyPath, Origin], over_origins: dict[KeyPath, Origin]
) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            if value is None:
                merged.pop(key, None)
                _forget(origins, (*path, key))
            else:
                merged[key] = _merge(base.get(key), value, (*path, key), origins, over_origins)
        return merged
    _forget(origins, path)
    for place, origin in over_origins.items():
        if place[: len(path)] == path:
            origins[place] = origin
    return over


def _forget(origins: dict[KeyPath, Origin], path: KeyPath) -> None:
    for place in [place for place in origins if place[: len(path)] == path]:
        del origins[place]


def interpolate(source: Source, environ: Mapping[str, str]) -> tuple[Source, list[str]]:
    """`${NAME}`, `${NAME:-default}` and `$$` in every text value; the second result is what was wrong."""
    origins, problems = dict(source.origins), list[str]()

    def fill(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        used: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match["bad"] is not None:
                problems.append(
                    _problem(
                        origins, path, f"'${match['bad']}' is not a reference; write ${{NAME}}, or $$ for $"
                    )
                )
                return match[0]
            name, default = match["name"], match["default"]
            used.append(name)
            found = environ.get(name)
            if not found and default is not None:
                found = default
            if found is None:
                problems.append(_problem(origins, path, f"environment variable {name} is not set"))
                return ""
            return found

        filled = _REFERENCE.sub(replace, value)
        if used and path in origins:
            origins[path] = Origin(origins[path].file, origins[path].line, tuple(used))
        return filled

    return Source(fill(source.data, ()), origins), problems


def _problem(origins: dict[KeyPath, Origin], path: KeyPath, text: str) -> str:
    origin = origins.get(path)
    where = f"{origin.file}:{origin.line}: " if origin else ""
    return f"{where}{'.'.join(str(part) for part in path)}: {text}"
