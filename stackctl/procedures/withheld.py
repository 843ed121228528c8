"""What a step leaves behind, in the form that the journal may hold: a secret input as its own placeholder.

On resume the inputs are given again, and the placeholders become what they stand for. What holds a secret
that cannot be put back that way is left out: a later step that needs it is told so, rather than given `***`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackctl.procedures.model import FrontMatter
from stackctl.redact import without_known


class Withheld:
    def __init__(self, front: FrontMatter, values: Mapping[str, Any]) -> None:
        secret = [name for name, spec in front.inputs.items() if spec.secret and values.get(name)]
        self._values = {f"${{{{ inputs.{name} }}}}": values[name] for name in secret}
        texts = {mark: str(value) for mark, value in self._values.items() if not isinstance(value, list)}
        self._texts = dict(sorted(texts.items(), key=lambda item: len(item[1]), reverse=True))

    def kept(self, data: Mapping[str, Any]) -> dict[str, Any]:
        marked = {name: self._mark(value) for name, value in data.items()}
        return {name: value for name, value in marked.items() if not _shows(value)}

    def restored(self, value: Any) -> Any:
        if isinstance(value, str):
            if value in self._values:
                return self._values[value]
            for mark, text in self._texts.items():
                value = value.replace(mark, text)
            return value
        if isinstance(value, Mapping):
            return {name: self.restored(item) for name, item in value.items()}
        return [self.restored(item) for item in value] if isinstance(value, list) else value

    def _mark(self, value: Any) -> Any:
        for mark, secret in self._values.items():
            if type(value) is type(secret) and value == secret:
                return mark
        if isinstance(value, str):
            for mark, text in self._texts.items():
                value = value.replace(text, mark)
            return value
        if isinstance(value, Mapping):
            return {str(name): self._mark(item) for name, item in value.items()}
        return [self._mark(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shows(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_shows, value.values()))
    if isinstance(value, list):
        return any(map(_shows, value))
    return isinstance(value, str) and without_known(value) != value
