"""Models in shards at Hugging Face: its registry refuses them, its list of files does not.

The shards become the layers of a manifest that is made here, with the digests that the list gives; they are
checked like any other blob. The runner loads them as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llm_engine.models.config import ModelConfig
from llm_engine.models.describe import describe
from llm_engine.models.digests import Digest
from llm_engine.models.errors import InvalidDigest, RegistryError
from llm_engine.models.manifests import CONFIG_TYPE, Layer, Manifest
from llm_engine.models.names import DEFAULT_TAG
from llm_engine.models.registry.client import Registry, raise_for
from llm_engine.models.store import ModelStore

HUB = "https://huggingface.co"
HOSTS = ("hf.co", "huggingface.co")
PREFERRED = "Q4_K_M"
MAX_LIST = 8 * 1024 * 1024
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class Shards:
    layers: tuple[Layer, ...]
    addresses: Mapping[str, str]
    """Where each digest is fetched from."""


def refuses_shards(registry: Registry, error: RegistryError) -> bool:
    return registry.name.host.lower() in HOSTS and "sharded" in str(error).lower()


async def find(registry: Registry) -> Shards:
    """The shards that the name's tag means: of that quantisation, or of that file."""
    name = registry.name
    repository = f"{name.namespace}/{name.model}"
    url = f"{HUB}/api/models/{repository}/tree/main?recursive=true"
    async with registry.request("GET", url, follow=True) as response:
        await raise_for(response)
        raw = await response.content.read(MAX_LIST + 1)
    groups: dict[str, dict[int, tuple[str, Layer]]] = {}
    for stem, number, path, layer in _shards(raw, repository):
        groups.setdefault(stem, {})[number] = (path, layer)
    chosen = _choose(list(groups), name.tag)
    if chosen is None:
        raise RegistryError(
            f"pull model manifest: {repository} has no shards of {name.tag}; it has "
            f"{', '.join(sorted(groups)) or 'none at all'}"
        )
    found = [groups[chosen][number] for number in sorted(groups[chosen])]
    return Shards(
        tuple(layer for _, layer in found),
        {str(layer.digest): f"{HUB}/{repository}/resolve/main/{quote(path)}" for path, layer in found},
    )


def _shards(raw: bytes, repository: str) -> Iterator[tuple[str, int, str, Layer]]:
    try:
        entries = json.loads(raw)
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise RegistryError(f"pull model manifest: the list of files of {repository} cannot be read")
    for entry in entries:
        match = _SHARD.fullmatch(str(entry.get("path", ""))) if isinstance(entry, dict) else None
        if match and (layer := _layer(entry)):
            yield match["stem"], int(match["number"]), match[0], layer


def _layer(entry: Mapping[str, Any]) -> Layer | None:
    """None for a file without a digest: what cannot be checked is not fetched."""
    large = entry.get("lfs")
    if not isinstance(large, dict) or not isinstance(large.get("size"), int):
        return None
    try:
        return Layer.of_kind("model", Digest.parse(f"sha256:{large.get('oid', '')}"), large["size"])
    except InvalidDigest:
        return None


def _choose(stems: list[str], tag: str) -> str | None:
    """`Q8_0`, or a file's name, finds `Q8_0/Some-Model-Q8_0`; no tag means the usual quantisation."""
    wanted = PREFERRED if tag == DEFAULT_TAG else re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", tag)
    ends = re.compile(rf"(^|[-._/]){re.escape(wanted)}$", re.IGNORECASE)
    fitting = sorted((stem for stem in stems if ends.search(stem)), key=len)
    if not fitting and tag == DEFAULT_TAG:
        fitting = sorted(stems)
    return fitting[0] if fitting else None


def manifest(store: ModelStore, shards: Shards) -> tuple[Manifest, bytes]:
    """What a registry would have said, and the configuration that belongs to it; the shards are there."""
    config = describe(store, shards.layers, ModelConfig(), {}).encode()
    layer = Layer(CONFIG_TYPE, Digest.of(config), len(config))
    return Manifest.make(layer, shards.layers), config
