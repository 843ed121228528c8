"""Jinja chat templates as Hugging Face models carry them, in a sandbox with limits."""

from llm_engine.templates.jinja.template import ChatTemplate

__all__ = ["ChatTemplate"]
