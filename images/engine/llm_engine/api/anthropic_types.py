"""The bodies of the Anthropic routes, in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from llm_engine.api import request_schemas


@dataclass(frozen=True)
class MessagesRequest:
    __go_package__: ClassVar[str] = "anthropic"
    __needs__: ClassVar[tuple[str, ...]] = ("model", "max_tokens", "messages")
    model: str = ""
    max_tokens: int = 0
    messages: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.ANTHROPIC_MESSAGES}
    )
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.ANTHROPIC_TOOLS}
    )
    tool_choice: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None
    metadata: Any = None
    # Accepted beyond Anthropic, as extra fields of its SDKs allow.
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class CountTokensRequest:
    __go_package__: ClassVar[str] = "anthropic"
    __needs__: ClassVar[tuple[str, ...]] = ("model", "messages")
    model: str = ""
    messages: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.ANTHROPIC_MESSAGES}
    )
    system: Any = None
    tools: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.ANTHROPIC_TOOLS}
    )
    tool_choice: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None


class CountTokensReply(TypedDict):
    input_tokens: int


class UsageOut(TypedDict):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class Block(TypedDict):
    type: str
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    id: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[dict[str, Any]]


class MessageReply(TypedDict):
    id: str
    type: str
    role: str
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: UsageOut


class ErrorDetail(TypedDict):
    type: str
    message: str


class ErrorReply(TypedDict):
    type: str
    error: ErrorDetail
    request_id: str
