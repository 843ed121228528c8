"""The body of POST /v1/responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from llm_engine.api import request_schemas


@dataclass(frozen=True)
class ResponsesRequest:
    __go_package__: ClassVar[str] = "openai"
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    input: Any = field(default=None, metadata={"schema": request_schemas.RESPONSES_INPUT})
    instructions: str = ""
    tools: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.RESPONSES_TOOLS}
    )
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    reasoning: Any = None
    text: Any = None
    temperature: float | None = None
    top_p: float | None = None
    truncation: str | None = None
    stream: bool = False
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Any = None
    user: str | None = None
    # Accepted beyond OpenAI, as extra fields of its SDKs allow.
    options: dict[str, Any] | None = None


class InputDetails(TypedDict):
    cached_tokens: int


class OutputDetails(TypedDict):
    reasoning_tokens: int


class ResponsesUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(TypedDict):
    reason: str


class Response(TypedDict):
    id: str
    object: str
    created_at: int
    completed_at: int | None
    status: str
    error: dict[str, Any] | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: float
    truncation: str
    usage: ResponsesUsage | None
    user: str | None
    metadata: dict[str, Any]
    background: bool
    service_tier: NotRequired[str]
