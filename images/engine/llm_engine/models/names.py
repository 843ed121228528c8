"""Model names: `[scheme://][host[:port]/][namespace/]model[:tag][@sha256:digest]`, and what is assumed where
a part is left out.

A `Name` is always complete and valid. Case is kept, but two names that differ in case only are the same
model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidDigest, InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True)
class Name:
    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default="", compare=False)
    pin: str = ""
    """The manifest digest that the name asks for (`sha256:<hex>`), or nothing."""

    @classmethod
    def parse(cls, text: str) -> Name:
        """The name in `text`, with what is left out filled in; InvalidName when it is none."""
        rest, at, pin = text.strip().partition("@")
        if at:
            try:
                pin = str(Digest.parse(pin))
            except InvalidDigest:
                raise InvalidName(text) from None
        scheme = ""
        if "://" in rest:
            scheme, _, rest = rest.partition("://")
        tag = DEFAULT_TAG
        slash, colon = rest.rfind("/"), rest.rfind(":")
        if colon > slash:
            rest, tag = rest[:colon], rest[colon + 1 :]
        parts = rest.split("/")
        if len(parts) > 3:
            raise InvalidName(text)
        model = parts[-1]
        namespace = parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE
        host = parts[0] if len(parts) == 3 else DEFAULT_HOST
        valid = (
            _HOST.fullmatch(host)
            and _NAMESPACE.fullmatch(namespace)
            and _PART.fullmatch(model)
            and _PART.fullmatch(tag)
        )
        if not valid:
            raise InvalidName(text)
        return cls(host, namespace, model, tag, scheme, pin)

    @classmethod
    def from_path(cls, path: PurePosixPath) -> Name:
        """The name of a manifest file, given as `host/namespace/model/tag`."""
        if len(path.parts) != 4:
            raise InvalidName(str(path))
        host, namespace, model, tag = path.parts
        name = cls.parse(f"{host}/{namespace}/{model}:{tag}")
        if name.path != path:
            raise InvalidName(str(path))
        return name

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two names of one model have in common."""
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())

    @property
    def short(self) -> str:
        """The shortest text that means this name; the tag is always there."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __str__(self) -> str:
        return self.short
