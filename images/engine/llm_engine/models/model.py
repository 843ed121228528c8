"""One stored model: its manifest and, read when asked for, what its layers say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from llm_engine.models import capabilities as caps
from llm_engine.models.blobs import BlobStore
from llm_engine.models.config import MAX_CONFIG, ModelConfig
from llm_engine.models.errors import BlobMissing, CorruptManifest, InvalidGGUF
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.gguf.merge import joined
from llm_engine.models.manifests import Layer, Manifest
from llm_engine.models.names import Name

MAX_TEXT = 16 * 1024 * 1024


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


@dataclass(frozen=True)
class Model:
    name: Name
    manifest: Manifest
    modified_at: datetime
    blobs: BlobStore = field(repr=False, compare=False)

    @property
    def short_name(self) -> str:
        return self.name.short

    @property
    def digest(self) -> str:
        """Hexadecimal, without a prefix, as listings show it."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.manifest.digest.hex

    @property
    def size(self) -> int:
        return self.manifest.size

    @cached_property
    def config(self) -> ModelConfig:
        if self.manifest.config.size == 0:
            return ModelConfig()
        try:
            raw = self.blobs.read(self.manifest.config.digest, MAX_CONFIG)
        except BlobMissing as error:
            raise BlobMissing(error.digest, self.short_name) from None
        return ModelConfig.parse(raw, self.short_name)

    # -- files ---------------------------------------------------------------------------------------------

    def paths(self, *kinds: str) -> list[Path]:
        return [self.blobs.path(layer.digest) for layer in self.manifest.of_kind(*kinds)]

    @property
    def model_path(self) -> Path | None:
        """The weights: the first file of a model that consists of several."""
        return self.model_paths[0] if self.model_paths else None

    @cached_property
    def model_paths(self) -> list[Path]:
        """The weights' files in the order of their shards: a registry may keep a model in several."""
        paths = self.paths("model")
        if len(paths) < 2:
            return paths
        try:
            return sorted(paths, key=lambda path: read_gguf(path).get("split.no", 0))
        except (FileNotFoundError, InvalidGGUF):
            return paths  # whoever loads it is told what is wrong

    @property
    def adapter_paths(self) -> list[Path]:
        return self.paths("adapter")

    @property
    def projector_paths(self) -> list[Path]:
        return self.paths("projector")

    @property
    def draft_path(self) -> Path | None:
        paths = self.paths("draft")
        return paths[0] if paths else None

    def missing(self) -> list[Layer]:
        """Layers whose blob is not there or has another size than the manifest says."""
        return [
            layer
            for layer in self.manifest.everything
            if layer.size and not self.blobs.has(layer.digest, layer.size)
        ]

    def check_whole(self) -> None:
        """BlobMissing for the first layer that is not there or was cut off."""
        for layer in self.missing():
            state = "truncated" if self.blobs.has(layer.digest) else "missing"
            raise BlobMissing(str(layer.digest), self.short_name, state)

    # -- texts ---------------------------------------------------------------------------------------------

    def _texts(self, *kinds: str) -> list[str]:
        texts = []
        for layer in self.manifest.of_kind(*kinds):
            try:
                texts.append(self.blobs.read(layer.digest, MAX_TEXT).decode("utf-8", "replace"))
            except BlobMissing as error:
                raise BlobMissing(error.digest, self.short_name) from None
        return texts

    @cached_property
    def template(self) -> str | None:
        """The Go template; None where the model brings none. `prompt` is its older name."""
        texts = self._texts("template", "prompt")
        return texts[-1] if texts else None

    @cached_property
    def system(self) -> str:
        texts = self._texts("system")
        return texts[-1] if texts else ""

    @cached_property
    def licenses(self) -> list[str]:
        return self._texts("license")

    @cached_property
    def params(self) -> dict[str, Any]:
        """The options that the model sets, in the order of their names."""
        merged: dict[str, Any] = {}
        for text in self._texts("params"):
            merged.update(self._json(text, dict, "parameters"))
        return dict(sorted(merged.items()))

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for text in self._texts("messages"):
            found += [item for item in self._json(text, list, "messages") if isinstance(item, dict)]
        return found

    def _json(self, text: str, kind: type[Any], what: str) -> Any:
        try:
            value = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise CorruptManifest(self.short_name, f"its {what} are no JSON: {error}") from None
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise CorruptManifest(self.short_name, f"its {what} are no JSON {kind.__name__}")
        return value

    # -- what the weights say ------------------------------------------------------------------------------

    @cached_property
    def gguf(self) -> GGUFFile | None:
        """None for a model without weights of its own. InvalidGGUF and BlobMissing as the case may be."""
        headers = []
        for path in self.model_paths:
            try:
                headers.append(read_gguf(path))
            except FileNotFoundError:
                raise BlobMissing(path.name.replace("-", ":", 1), self.short_name) from None
        return joined(headers) if headers else None

    @cached_property
    def chat_template(self) -> str:
        """The Jinja template inside the weights."""
        try:
            gguf = self.gguf
        except (InvalidGGUF, BlobMissing):
            return ""
        return gguf.get("tokenizer.chat_template", "") if gguf else ""

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        if self.config.capabilities and self.model_path is None:
            return self.config.capabilities
        try:
            gguf = self.gguf
        except (InvalidGGUF, BlobMissing):
            gguf = None
        return caps.detect(
            gguf,
            template=self.template,
            chat_template=self.chat_template,
            projectors=bool(self.projector_paths),
            config=self.config,
        )
