"""SHA-256 digests as Ollama writes them: `sha256:<hex>` in documents, `sha256-<hex>` in file names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from llm_engine.models.errors import InvalidDigest

_PATTERN = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclass(frozen=True, order=True)
class Digest:
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidDigest(text)
        return cls(match.group(1).lower())

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def file_name(self) -> str:
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
