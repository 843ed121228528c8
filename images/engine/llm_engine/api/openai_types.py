"""The bodies of the OpenAI routes, in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from llm_engine.api import request_schemas


@dataclass(frozen=True)
class StreamOptions:
    __go_package__: ClassVar[str] = "openai"
    include_usage: bool = False


@dataclass(frozen=True)
class ChatCompletionRequest:
    __go_package__: ClassVar[str] = "openai"
    __needs__: ClassVar[tuple[str, ...]] = ("model", "messages")
    model: str = ""
    messages: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.OPENAI_MESSAGES}
    )
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: Any = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    response_format: Any = None
    tools: list[dict[str, Any]] = field(
        default_factory=list, metadata={"schema": request_schemas.OPENAI_TOOLS}
    )
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: Any = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str = ""
    # Accepted beyond OpenAI, as extra fields of its SDKs allow.
    documents: list[Any] = field(default_factory=list)
    options: dict[str, Any] | None = None
    keep_alive: Any = None
    debug_render_only: bool = field(default=False, metadata={"json": "_debug_render_only"})


@dataclass(frozen=True)
class CompletionRequest:
    __go_package__: ClassVar[str] = "openai"
    __needs__: ClassVar[tuple[str, ...]] = ("model",)
    model: str = ""
    prompt: Any = None
    suffix: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: Any = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool = False
    user: str = ""
    options: dict[str, Any] | None = None
    keep_alive: Any = None


@dataclass(frozen=True)
class EmbeddingsRequest:
    __go_package__: ClassVar[str] = "openai"
    __go_name__: ClassVar[str] = "EmbedRequest"
    __needs__: ClassVar[tuple[str, ...]] = ("model", "input")
    input: Any = None
    model: str = ""
    dimensions: int = 0
    encoding_format: str = ""
    user: str = ""


@dataclass(frozen=True)
class RerankRequest:
    __go_package__: ClassVar[str] = "openai"
    __needs__: ClassVar[tuple[str, ...]] = ("model", "query", "documents")
    model: str = ""
    query: str = ""
    documents: list[Any] = field(default_factory=list)
    top_n: int | None = None
    return_documents: bool = False


class CallFunctionOut(TypedDict):
    name: str
    arguments: str


class CallOut(TypedDict):
    id: str
    index: int
    type: str
    function: CallFunctionOut


class MessageOut(TypedDict):
    role: str
    content: str | None
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[CallOut]]


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(TypedDict):
    content: list[Logprob]


class Choice(TypedDict):
    index: int
    message: MessageOut
    finish_reason: str | None
    logprobs: NotRequired[Logprobs | None]


class PromptDetails(TypedDict):
    cached_tokens: int


class CompletionDetails(TypedDict):
    reasoning_tokens: int


class UsageOut(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: NotRequired[PromptDetails]
    completion_tokens_details: NotRequired[CompletionDetails]


class ChatCompletion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: UsageOut


class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(TypedDict):
    text: str
    index: int
    finish_reason: str | None
    logprobs: TextLogprobs | None


class TextCompletion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageOut


class EmbeddingOut(TypedDict):
    object: str
    embedding: list[float] | str
    index: int


class EmbeddingsUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(TypedDict):
    object: str
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingsUsage


class RerankDocument(TypedDict):
    text: str


class RerankResult(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[RerankDocument]


class RerankReply(TypedDict):
    object: str
    model: str
    results: list[RerankResult]
    usage: EmbeddingsUsage


class ModelOut(TypedDict):
    id: str
    object: str
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: str
    data: list[ModelOut]


class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(TypedDict):
    error: ErrorDetail
