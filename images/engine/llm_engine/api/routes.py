"""The table of all routes."""

from __future__ import annotations

from llm_engine.api import (
    admin,
    anthropic,
    anthropic_types,
    ollama_embed,
    ollama_ps,
    ollama_text,
    ollama_types,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_models,
    openai_types,
    responses,
    responses_types,
    transcriptions,
)
from llm_engine.api.endpoint import NDJSON, SSE, Endpoint
from llm_engine.api.errors import Dialect

GET, POST = ("GET",), ("POST",)
GET_HEAD = ("GET", "HEAD")

NATIVE = [
    Endpoint(GET_HEAD, "/", admin.root, reply=str, summary="Says that it runs."),
    Endpoint(GET_HEAD, "/api/version", admin.version, reply=admin.VersionReply, summary="The version."),
    Endpoint(
        POST,
        "/api/generate",
        ollama_text.generate,
        request=ollama_types.GenerateRequest,
        reply=ollama_types.GenerateReply,
        stream=NDJSON,
        summary="Continue a prompt.",
    ),
    Endpoint(
        POST,
        "/api/chat",
        ollama_text.chat_route,
        request=ollama_types.ChatRequest,
        reply=ollama_types.ChatReply,
        stream=NDJSON,
        summary="Answer a conversation.",
    ),
    Endpoint(
        POST,
        "/api/embed",
        ollama_embed.embed_route,
        request=ollama_types.EmbedRequest,
        reply=ollama_types.EmbedReply,
        summary="Vectors of texts.",
    ),
    Endpoint(
        POST,
        "/api/embeddings",
        ollama_embed.embeddings_route,
        request=ollama_types.EmbeddingRequest,
        reply=ollama_types.EmbeddingReply,
        summary="The vector of one text (older form).",
    ),
    Endpoint(GET, "/api/ps", ollama_ps.ps, reply=ollama_ps.PsReply, summary="What is loaded."),
    Endpoint(
        POST,
        "/api/tokenize",
        admin.tokenize,
        request=ollama_types.TokenizeRequest,
        reply=admin.TokenizeReply,
        summary="A text as token ids.",
    ),
    Endpoint(
        POST,
        "/api/detokenize",
        admin.detokenize,
        request=ollama_types.DetokenizeRequest,
        reply=admin.DetokenizeReply,
        summary="Token ids as text.",
    ),
    Endpoint(GET, "/api/status", admin.status, reply=dict, summary="What is loaded, running and waiting."),
    Endpoint(POST, "/api/me", admin.unavailable, summary="Ollama's cloud account: there is none here."),
    Endpoint(POST, "/api/experimental/web_search", admin.no_web_search, summary="Not offered."),
    Endpoint(POST, "/api/experimental/web_fetch", admin.no_web_fetch, summary="Not offered."),
]
ADMIN = [
    Endpoint(GET_HEAD, "/healthz", admin.healthz, reply=admin.HealthReply, summary="Alive."),
    Endpoint(GET_HEAD, "/readyz", admin.readyz, reply=admin.HealthReply, summary="Able to serve."),
    Endpoint(GET, "/metrics", admin.metrics, reply=str, summary="Prometheus metrics."),
    Endpoint(GET, "/openapi.json", admin.openapi, reply=dict, summary="This description."),
]
OPENAI = [
    Endpoint(
        POST,
        "/v1/chat/completions",
        openai_chat.chat_completions,
        Dialect.OPENAI,
        openai_types.ChatCompletionRequest,
        openai_types.ChatCompletion,
        SSE,
        "Answer a conversation.",
    ),
    Endpoint(
        POST,
        "/v1/completions",
        openai_completions.completions,
        Dialect.OPENAI,
        openai_types.CompletionRequest,
        openai_types.TextCompletion,
        SSE,
        "Continue a prompt.",
    ),
    Endpoint(
        POST,
        "/v1/embeddings",
        openai_embeddings.embeddings,
        Dialect.OPENAI,
        openai_types.EmbeddingsRequest,
        openai_types.EmbeddingsReply,
        summary="Vectors of texts.",
    ),
    Endpoint(
        POST,
        "/v1/rerank",
        openai_embeddings.rerank,
        Dialect.OPENAI,
        openai_types.RerankRequest,
        openai_types.RerankReply,
        summary="Documents in the order of how well they answer a query.",
    ),
    Endpoint(
        POST,
        "/v1/responses",
        responses.responses,
        Dialect.OPENAI,
        responses_types.ResponsesRequest,
        responses_types.Response,
        SSE,
        "Answer a conversation, in items.",
    ),
    Endpoint(
        POST,
        "/v1/audio/transcriptions",
        transcriptions.transcribe,
        Dialect.OPENAI,
        reply=transcriptions.Transcription,
        summary="Speech as text.",
    ),
    Endpoint(
        GET,
        "/v1/models",
        openai_models.list_models,
        Dialect.OPENAI,
        reply=openai_types.ModelList,
        summary="Models there are.",
    ),
    Endpoint(
        GET,
        "/v1/models/{model}",
        openai_models.one_model,
        Dialect.OPENAI,
        reply=openai_types.ModelOut,
        summary="One model.",
    ),
]
ANTHROPIC = [
    Endpoint(
        POST,
        "/v1/messages",
        anthropic.messages,
        Dialect.ANTHROPIC,
        anthropic_types.MessagesRequest,
        anthropic_types.MessageReply,
        SSE,
        "Answer a conversation.",
    ),
    Endpoint(
        POST,
        "/v1/messages/count_tokens",
        anthropic.count_tokens,
        Dialect.ANTHROPIC,
        anthropic_types.CountTokensRequest,
        anthropic_types.CountTokensReply,
        summary="How many tokens a conversation has.",
    ),
]
ENDPOINTS = [*NATIVE, *ADMIN, *OPENAI, *ANTHROPIC]
