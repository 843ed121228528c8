"""The chat side of a stored model, made once and kept while its manifest stays the same."""

from __future__ import annotations

import threading

from llm_engine.api.endpoint import Call
from llm_engine.api.ollama_messages import kept_message
from llm_engine.chat.model import ChatModel
from llm_engine.models.model import Model
from llm_engine.runner.messages import RunnerInfo

_KEPT = 256
_lock = threading.Lock()
_made: dict[tuple[str, str, str, str, bool], ChatModel] = {}


def chat_model(call: Call, model: Model, info: RunnerInfo | None = None) -> ChatModel:
    """With a runner, the texts of its begin and end tokens are known; templates print them."""
    bos, eos = (info.bos_text, info.eos_text) if info else ("", "")
    prefer_go = call.engine.settings.go_template
    key = (model.short_name, model.digest, bos, eos, prefer_go)
    with _lock:
        known = _made.get(key)
    if known is None:
        known = ChatModel(
            name=model.short_name,
            go_source=model.template,
            jinja_source=model.chat_template or None,
            renderer=model.config.renderer,
            parser=model.config.parser,
            architecture=model.gguf.architecture if model.gguf else "",
            bos=bos,
            eos=eos,
            system=model.system,
            messages=[kept_message(item) for item in model.messages],
            prefer_go=prefer_go,
        )
        with _lock:  # prompts are built in threads
            while len(_made) >= _KEPT:
                del _made[next(iter(_made))]
            known = _made.setdefault(key, known)
    return known
