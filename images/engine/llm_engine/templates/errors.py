"""What can go wrong with a template, by the situation of the person who wrote it."""

from __future__ import annotations


class TemplateError(Exception):
    """A template that cannot be parsed or executed; the text is for its author."""


class TemplateSyntaxError(TemplateError):
    """The text is not a template."""


class TemplateExecError(TemplateError):
    """The template is well formed and failed on this input."""


class TemplateRefused(TemplateExecError):
    """The template itself refused the conversation (`raise_exception`)."""


class TemplateLimitError(TemplateExecError):
    """The template used more steps, time, depth or output than any chat needs."""
