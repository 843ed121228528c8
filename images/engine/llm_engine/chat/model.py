"""What the chat room needs to know about a model: its templates, parsed once, and what they can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from llm_engine.chat.messages import Message
from llm_engine.templates.errors import TemplateError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.gotemplate.inspect import GoTraits, inspect
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.jinja.traits import Traits, probe

DEFAULT_TEMPLATE = "{{ .Prompt }}"


@dataclass(frozen=True)
class ChatModel:
    """The chat side of one model. Parsing and probing happen on first use and are kept."""

    name: str
    go_source: str | None = None
    jinja_source: str | None = None
    renderer: str = ""
    parser: str = ""
    architecture: str = ""
    bos: str = ""
    eos: str = ""
    system: str = ""
    messages: Sequence[Message] = ()
    prefer_go: bool = True
    """False where the operator switched Go templates off (OLLAMA_GO_TEMPLATE)."""

    @cached_property
    def go(self) -> Template:
        return go_template(self.go_source if self.go_source is not None else DEFAULT_TEMPLATE)

    @cached_property
    def go_traits(self) -> GoTraits:
        return inspect(self.go)

    @cached_property
    def jinja(self) -> ChatTemplate | None:
        """None also for a template that does not compile: the Go path still answers."""
        if not self.jinja_source:
            return None
        try:
            return jinja_template(self.jinja_source)
        except TemplateError:
            return None

    @cached_property
    def jinja_traits(self) -> Traits | None:
        return None if self.jinja is None else jinja_traits(self.jinja.source)

    @cached_property
    def uses_jinja(self) -> bool:
        """Ollama's rule: a Go template wins, unless the Jinja template can do more.

        A built-in renderer falls back to the model's own Jinja template, which says the same.
        """
        traits = self.jinja_traits
        if traits is None or not traits.renders:
            return False
        if self.renderer or self.go_source is None or not self.prefer_go:
            return True
        return (traits.tools and not self.go_traits.tools) or (
            traits.thinking and self.go_traits.thinking is None
        )

    @cached_property
    def supports_tools(self) -> bool:
        """The template shows tools to the model, or at least the calls it has made."""
        if self.uses_jinja and self.jinja_traits is not None:
            return self.jinja_traits.tools or self.jinja_traits.tool_calls
        return self.go_traits.tools

    @cached_property
    def shows_documents(self) -> bool:
        """The template in use has a place for documents."""
        return self.uses_jinja and self.jinja_traits is not None and self.jinja_traits.documents

    @cached_property
    def template_text(self) -> str:
        """The text of the template in use, where the marks of a model family are looked for."""
        if self.uses_jinja and self.jinja_source:
            return self.jinja_source
        return self.go_source or DEFAULT_TEMPLATE


@lru_cache(maxsize=128)
def go_template(source: str) -> Template:
    return Template(source)


@lru_cache(maxsize=128)
def jinja_template(source: str) -> ChatTemplate:
    return ChatTemplate(source)


@lru_cache(maxsize=128)
def jinja_traits(source: str) -> Traits:
    return probe(jinja_template(source))
