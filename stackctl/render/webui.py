"""Open WebUI's settings: local first. It talks to the engine and to nothing else, keeps its logins across
restarts, and takes its settings from here alone, so that what the stack file says is what is true.
"""

from __future__ import annotations

import json

from stackctl.config import StackConfig

# Environment variable of Open WebUI -> secret that fills it, read from the secret's file when it starts.
SECRETS = {"WEBUI_SECRET_KEY": "webui_secret_key", "WEBUI_ADMIN_PASSWORD": "webui_admin_password"}

_LOCAL_FIRST = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "ENABLE_OPENAI_API": "false",
    "ENABLE_COMMUNITY_SHARING": "false",
    "ENABLE_DIRECT_CONNECTIONS": "false",
    "ENABLE_WEB_SEARCH": "false",
}

_CLOSED = {
    "WEBUI_AUTH": "true",
    "ENABLE_SIGNUP": "false",
    "DEFAULT_USER_ROLE": "pending",
    "ENABLE_PASSWORD_VALIDATION": "true",
    "JWT_EXPIRES_IN": "7d",
    "ENABLE_CODE_EXECUTION": "false",
    "ENABLE_CODE_INTERPRETER": "false",
    "ENABLE_PLUGINS": "false",
    "SAFE_MODE": "true",
    "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
    "XFRAME_OPTIONS": "DENY",
    "XCONTENT_TYPE": "nosniff",
    "REFERRER_POLICY": "no-referrer",
    "WEBUI_SESSION_COOKIE_SAME_SITE": "strict",
}


def origins(config: StackConfig) -> tuple[str, ...]:
    """Where a browser may have the page from: elsewhere its live channel is refused, and nothing says so.

    Only what the stack itself publishes: a page on any other port of this host could use the login.
    """
    written, port = config.services.webui.origin, config.services.webui.port
    if written:
        return written
    found = [f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")]
    proxy = config.services.proxy
    if proxy.enabled:
        names = [name.lower() for name in proxy.hostnames if "*" not in name]
        found += [f"https://{name}:{proxy.webui_port}".removesuffix(":443") for name in names]
    return tuple(found)


def notes(config: StackConfig) -> list[str]:
    """What a network of browsers is not told by the page itself."""
    if not config.services.webui.enabled or config.services.webui.origin:
        return []
    known = ", ".join(origins(config))
    return [f"the web UI's live channel is open at {known} alone: services.webui.origin says where else"]


def environment(config: StackConfig, *, engine_url: str, data: str) -> dict[str, str]:
    service = config.services.webui
    allowed = origins(config)
    settings = {
        **_LOCAL_FIRST,
        **_CLOSED,
        "ENABLE_PERSISTENT_CONFIG": "false",  # else only the first start reads these
        "ENABLE_OLLAMA_API": "true",
        "OLLAMA_BASE_URL": engine_url,
        "DATA_DIR": data,
        "STATIC_DIR": f"{data}/static",
        "HOME": data,
        "WEBUI_ADMIN_EMAIL": service.admin_email,
        "WEBUI_URL": allowed[0],
        "CORS_ALLOW_ORIGIN": ";".join(allowed),
        "BYPASS_MODEL_ACCESS_CONTROL": "true",
        # 36 built-in tools (25 KB) would go with every chat, more than a small context holds.
        "DEFAULT_MODEL_METADATA": json.dumps({"capabilities": {"builtin_tools": False}}),
        "DEFAULT_MODEL_PARAMS": json.dumps({"num_ctx": service.context_length, "keep_alive": "30m"}),
        "TASK_MODEL_PARAMS": json.dumps({"think": False, "max_tokens": 256, "temperature": 0.2}),
        "CHAT_RESPONSE_MAX_TOOL_CALL_ITERATIONS": "10",
        "AIOHTTP_CLIENT_STREAM_IDLE_TIMEOUT": "600",
        "PYTHONUNBUFFERED": "1",
        # Document search goes through the engine: the built-in way would download a model.
        "RAG_EMBEDDING_ENGINE": "ollama",
        "RAG_OLLAMA_BASE_URL": engine_url,
        "RAG_EMBEDDING_BATCH_SIZE": "32",
        "RAG_EMBEDDING_CONCURRENT_REQUESTS": "2",
    }
    if service.embedding_model:
        settings["RAG_EMBEDDING_MODEL"] = service.embedding_model
    if all(origin.startswith("https://") for origin in allowed):
        settings["WEBUI_SESSION_COOKIE_SECURE"] = "true"
    return settings
