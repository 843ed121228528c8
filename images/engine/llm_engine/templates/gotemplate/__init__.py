"""An interpreter for Go's `text/template`, safe for templates from strangers."""

from llm_engine.templates.gotemplate.template import Template

__all__ = ["Template"]
