"""The bodies of the routes that manage models, in and out. Field names and Go type names are part of the
contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from llm_engine.api.goparse import GoDecodeError
from llm_engine.api.ollama_types import Message


@dataclass(frozen=True)
class Texts:
    """A text or a list of texts."""

    values: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: Any) -> Texts:
        if isinstance(value, str):
            return cls([value])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return cls(value)
        raise GoDecodeError("license must be a string or a list of strings")


@dataclass(frozen=True)
class ShowRequest:
    model: str = ""
    name: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class CopyRequest:
    __needs__: ClassVar[tuple[str, ...]] = ("source", "destination")
    source: str = ""
    destination: str = ""


@dataclass(frozen=True)
class DeleteRequest:
    model: str = ""
    name: str = ""


@dataclass(frozen=True)
class PullRequest:
    model: str = ""
    name: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None


@dataclass(frozen=True)
class PushRequest:
    model: str = ""
    name: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None


@dataclass(frozen=True)
class CreateRequest:
    model: str = ""
    name: str = ""
    stream: bool | None = None
    from_: str = field(default="", metadata={"json": "from"})
    files: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    draft_files: dict[str, str] = field(default_factory=dict)
    quantize: str = ""
    quantization: str = ""
    draft_quantize: str = ""
    template: str | None = None
    license: Texts | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    info: dict[str, Any] = field(default_factory=dict)


class Details(TypedDict):
    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: NotRequired[int]
    embedding_length: NotRequired[int]


class ModelOut(TypedDict):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: NotRequired[list[str]]
    remote_model: NotRequired[str]
    remote_host: NotRequired[str]


class TagsReply(TypedDict):
    models: list[ModelOut]


class TensorOut(TypedDict):
    name: str
    type: str
    shape: list[int]


class ShowReply(TypedDict):
    details: Details
    model_info: dict[str, Any]
    modified_at: str
    license: NotRequired[str]
    modelfile: NotRequired[str]
    parameters: NotRequired[str]
    template: NotRequired[str]
    system: NotRequired[str]
    renderer: NotRequired[str]
    parser: NotRequired[str]
    messages: NotRequired[list[dict[str, Any]]]
    remote_model: NotRequired[str]
    remote_host: NotRequired[str]
    projector_info: NotRequired[dict[str, Any]]
    tensors: NotRequired[list[TensorOut]]
    capabilities: NotRequired[list[str]]
    requires: NotRequired[str]


class ProgressReply(TypedDict):
    status: str
    digest: NotRequired[str]
    total: NotRequired[int]
    completed: NotRequired[int]
