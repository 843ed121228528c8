"""Making a model out of parts: weights that are in the blob store, or another model, and what a Modelfile
adds.

`create` is a generator of statuses in Ollama's words and order; the model exists when it has come to
`success`, and not a moment earlier. Whatever is wrong with the parts is found before anything is written,
where that is possible."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm_engine.models import builtins, parameters
from llm_engine.models.canonical import encode
from llm_engine.models.config import ModelConfig
from llm_engine.models.describe import describe, inherit
from llm_engine.models.digests import Digest
from llm_engine.models.errors import CreateError
from llm_engine.models.gguf import GGUFFile
from llm_engine.models.gguf.headers import read_gguf
from llm_engine.models.manifests import CONFIG_TYPE, Layer, Manifest
from llm_engine.models.model import Model
from llm_engine.models.modelfile import is_version
from llm_engine.models.names import Name
from llm_engine.models.quantize import check_target
from llm_engine.models.status import Status
from llm_engine.models.store import ModelStore
from llm_engine.models.weights import Part, open_parts, store_weights
from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.known import detect

ROLES = ("system", "user", "assistant", "tool")
# The order in which layers are written: it decides the digest.
ORDER = ("model", "projector", "adapter", "draft", "template", "system", "license", "params", "messages")


@dataclass(frozen=True)
class Recipe:
    """What a model shall be made of. None and empty mean: as the base has it.

    An empty template of a model without a base means: none, also where the weights write a known format."""

    name: Name
    base: Model | None = None
    files: Mapping[str, Digest] = field(default_factory=dict)
    adapters: Mapping[str, Digest] = field(default_factory=dict)
    drafts: Mapping[str, Digest] = field(default_factory=dict)
    quantize: str = ""
    draft_quantize: str = ""
    template: str | None = None
    system: str | None = None
    licenses: Sequence[str] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the header does not say: renderer, parser, requires, capabilities, context_length ..."""


def create_from_gguf(
    store: ModelStore,
    name: str,
    path: Path,
    *,
    template: str | None = None,
    system: str | None = None,
    params: Mapping[str, Any] | None = None,
    adapters: Sequence[Path] = (),
    projectors: Sequence[Path] = (),
) -> Model:
    """Stores a copy of a GGUF file under a name."""
    GGUFFile.open(path)  # refuses what is none before copying it
    with contextlib.ExitStack() as held:
        recipe = Recipe(
            Name.parse(name),
            files={item.name: store.add_file(item, held) for item in (path, *projectors)},
            adapters={item.name: store.add_file(item, held) for item in adapters},
            template=template,
            system=system,
            params=params or {},
        )
        for _ in create(store, recipe):
            pass
    return store.resolve(name)


def check(recipe: Recipe) -> dict[str, Any]:
    """Refuses what cannot become a model, before anything is done; gives the typed parameters."""
    if recipe.name.pin:
        raise CreateError(
            f"a new model has no digest yet: write {recipe.name.short} without {recipe.name.pin}"
        )
    if recipe.base is None and not (recipe.files or recipe.config.get("remote_host")):
        raise CreateError("neither 'from' or 'files' was specified")
    for target in (recipe.quantize, recipe.draft_quantize):
        if target:
            check_target(target)
    if recipe.template:
        try:
            Template(recipe.template)
        except TemplateError as error:
            raise CreateError(f"template error: {error}") from None
    for kind in builtins.KNOWN:
        given = str(recipe.config.get(kind) or "")
        if given and (wrong := builtins.mistake(kind, given)):
            raise CreateError(wrong)
    requires = recipe.config.get("requires")
    if requires and not is_version(str(requires)):
        raise CreateError("requires must be a valid semver (e.g. 0.14.0)")
    for message in recipe.messages:
        if message.get("role") not in ROLES:
            raise CreateError(
                f'message role must be one of "system", "user", or "assistant", not {message.get("role")!r}'
            )
    try:
        return parameters.check_all(recipe.params)
    except parameters.InvalidParameter as error:
        raise CreateError(str(error)) from None


def create(store: ModelStore, recipe: Recipe) -> Generator[Status, None, None]:
    """Makes the model; CreateError and its like say what is wrong with the recipe."""
    params = check(recipe)
    given = [*recipe.files.values(), *recipe.adapters.values(), *recipe.drafts.values()]
    with contextlib.ExitStack() as held:
        held.enter_context(store.keeping(given))
        if recipe.base:
            recipe = replace(recipe, base=held.enter_context(store.holding(recipe.base.name)))
        layers, config = inherit(recipe.base) if recipe.base else ([], ModelConfig())
        if given:
            yield Status("parsing GGUF")
        for part in _all_parts(store, recipe, layers):
            target = recipe.draft_quantize if part.kind == "draft" else recipe.quantize
            layer = yield from store_weights(store, part, target, held)
            layers = _with_part(layers, layer)
        _check_scales(params, layers)
        config = describe(store, layers, config, recipe.config)
        recipe, params, found = _with_known_template(store, recipe, layers, params)
        if found:
            yield Status(f"using autodetected template {found}")
        writer = _Writer(store, held)
        layers = _with_texts(writer, layers, recipe, params)
        for layer in layers:
            state = "creating new layer" if layer.digest in writer.new else "using existing layer"
            yield Status(f"{state} {layer.digest}")
        raw = config.encode()
        manifest = Manifest.make(Layer(CONFIG_TYPE, writer.add(raw), len(raw)), tuple(layers))
        yield Status("writing manifest")
        store.put(recipe.name, manifest)
        store.promised.release(given)
    yield Status("success")


def _with_part(layers: Sequence[Layer], new: Layer) -> list[Layer]:
    """A base keeps what it has, but for what is given anew. Adapters and projectors join those it has."""
    if new.kind == "adapter" and new.digest in {old.digest for old in layers if old.kind == "adapter"}:
        return list(layers)
    return [old for old in layers if old.kind != new.kind or new.kind in ("adapter", "projector")] + [new]


def _check_scales(params: Mapping[str, Any], layers: Sequence[Layer]) -> None:
    adapters = sum(layer.kind == "adapter" for layer in layers)
    if len(scales := params.get("adapter_scale", ())) > adapters:
        raise CreateError(f"adapter_scale has {len(scales)} values for {adapters} adapters")


def _all_parts(store: ModelStore, recipe: Recipe, inherited: Sequence[Layer]) -> list[Part]:
    parts = open_parts(store, recipe.files, recipe.adapters, recipe.drafts)
    has_model = any(layer.kind == "model" for layer in inherited)
    if has_model and any(part.kind == "model" for part in parts):
        raise CreateError("a model that is made from another one cannot have weights of its own as well")
    if has_model and recipe.quantize:
        # The base's weights are made anew; everything else of it stays.
        files = {f"base-{n}.gguf": layer.digest for n, layer in enumerate(inherited) if layer.kind == "model"}
        parts = [*open_parts(store, files, {}, {}), *parts]
    elif not has_model and recipe.base is None and not any(part.kind == "model" for part in parts):
        raise CreateError(
            "no weights were given: only adapters or projectors" if parts else "no files provided"
        )
    return parts


def _with_known_template(
    store: ModelStore, recipe: Recipe, layers: Sequence[Layer], params: dict[str, Any]
) -> tuple[Recipe, dict[str, Any], str]:
    """Adds the Go template and the stops of a known format, where the weights speak one and nothing is given.

    A model with both can be used by programs that read one of the two.
    """
    weights = [layer for layer in layers if layer.kind == "model"]
    if recipe.template is not None or recipe.base is not None or not weights:
        return recipe, params, ""
    source = read_gguf(store.blobs.path(weights[0].digest)).get("tokenizer.chat_template", "")
    known = detect(source) if source else None
    if known is None:
        return recipe, params, ""
    if known.stops and "stop" not in params:
        params = {**params, "stop": list(known.stops)}
    return replace(recipe, template=known.template), params, known.name


class _Writer:
    """Adds small layers, keeps them from being removed, and remembers which are new."""

    def __init__(self, store: ModelStore, held: contextlib.ExitStack) -> None:
        self.store = store
        self.held = held
        self.new: set[Digest] = set()

    def add(self, data: bytes) -> Digest:
        self.held.enter_context(self.store.keeping([Digest.of(data)]))
        digest, new = self.store.blobs.add(data)
        if new:
            self.new.add(digest)
        return digest

    def layer(self, kind: str, data: bytes) -> Layer:
        return Layer.of_kind(kind, self.add(data), len(data))


def _with_texts(
    writer: _Writer, layers: Sequence[Layer], recipe: Recipe, params: Mapping[str, Any]
) -> list[Layer]:
    """Replaces template, system and messages, appends licences, merges parameters, and puts all in order."""
    kept = list(layers)

    def put(kind: str, data: bytes, *replaces: str) -> None:
        kept[:] = [layer for layer in kept if layer.kind not in (kind, *replaces)]
        kept.append(writer.layer(kind, data))

    if recipe.template:
        put("template", recipe.template.encode(), "prompt")
    if recipe.system:
        put("system", recipe.system.encode())
    for text in recipe.licenses:
        layer = writer.layer("license", text.encode())
        if layer.digest not in {old.digest for old in kept if old.kind == "license"}:
            kept.append(layer)
    if params:
        base = recipe.base.params if recipe.base else {}
        put("params", encode({**base, **params}, sort_keys=True))
    if recipe.messages:
        put("messages", encode([dict(message) for message in recipe.messages]))
    return sorted(kept, key=lambda layer: ORDER.index(layer.kind) if layer.kind in ORDER else len(ORDER))
