"""The Jinja sandbox: what Hugging Face templates need works, and nothing else gets through."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.templates.errors import (
    TemplateError,
    TemplateExecError,
    TemplateLimitError,
    TemplateRefused,
    TemplateSyntaxError,
)
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.limits import Budget

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def render(source: str, **context: Any) -> str:
    return ChatTemplate(source).render(context, now=NOW)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("{{ messages[0].content }}", "hi"),
        ("{%- for m in messages %}\n{{ m['role'] }}\n{%- endfor %}", "user"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{{ {'b': 1, 'a': '<é>'} | tojson }}", '{"b": 1, "a": "<é>"}'),
        ("{{ [1, 2] | tojson(indent=2) }}", "[\n  1,\n  2\n]"),
        ("{{ {'a': 1, 'b': 2} | tojson(separators=(',', ':')) }}", '{"a":1,"b":2}'),
        ("{{ messages | map(attribute='role') | tojson }}", '["user"]'),
        ("{{ strftime_now('%d %b %Y') }}", "01 Mar 2026"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% set n = namespace(x=0) %}{% for i in [3] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "3"),
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}", "12"),
        ("{% set l = [] %}{{ l.append(3) or '' }}{{ l }}", "[3]"),
        ("{{ 'a,b'.split(',')[1] ~ 'x' ~ 1 }}", "bx1"),
        ("{{ '{:>4}|{}'.format('a', 2) }}", "   a|2"),
        ("{{ '%05.1f' | format(2.5) }}", "002.5"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ ('x' * 3) + 'y' }}", "xxxy"),
        ("{{ missing is defined }}{{ missing }}", "False"),
        ("{{ messages | length }}{% for k, v in messages[0] | items %}{{ k }}{% endfor %}", "1rolecontent"),
    ],
)  # fmt: skip
def test_what_templates_need(source: str, output: str) -> None:
    assert render(source, messages=[{"role": "user", "content": "hi"}]) == output


def test_a_template_refuses_with_its_own_words() -> None:
    with pytest.raises(TemplateRefused, match=r"^No system role\.$"):
        render("{{ raise_exception('No system role.') }}")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% if %}", "line 1"),
        ("\n{{ x", "line 2"),
        ("{% for x in y %}", "line 1"),
        ("{{ x | nofilter }}", "nofilter"),
    ],
)
def test_syntax_errors_name_the_line(source: str, text: str) -> None:
    with pytest.raises(TemplateSyntaxError, match=text):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ ('{0.__cl' ~ 'ass__}').format('') }}",
        "{{ (x for x in []).gi_frame }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends 'x' %}",
        "{{ range.__self__ }}",
        "{{ lipsum.__globals__ }}",
    ],
)
def test_python_is_out_of_reach(source: str) -> None:
    with contextlib.suppress(TemplateError):
        text = render(source, messages=[])
        assert text in ("", "Undefined"), text


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ '{:{}}'.format('x', 1000000000) }}",
        "{% set s = 'x' * 900000 %}{{ s.replace('x', s) }}",
        "{% set s = 'x' * 900000 %}{{ s | replace('x', s) }}",
        "{% set s = 'x' * 900000 %}{{ s.join(range(99999) | list) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% set s = 'x' * 900000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
        "{% set s = 'x' * 900000 %}{% for i in range(99999) %}{% set t = s | upper %}{% endfor %}",
    ],
)
def test_a_template_that_would_never_end_is_stopped(source: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateLimitError):
        ChatTemplate(source).render({"messages": [1]}, budget=Budget(max_seconds=3))
    # In CPU time: what else the machine does is not the template's fault.
    assert time.process_time() - began < 8


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(TemplateSyntaxError):
        ChatTemplate("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


def test_mistakes_of_a_template_are_errors_of_the_template() -> None:
    for source in (
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages[0].x.y }}",
        "{{ undefined.x }}",
        "{{ none() }}",
    ):
        with pytest.raises(TemplateExecError):
            render(source, messages=[{}])


_WORDS = (
    "{{ }} {% %} {%- -%} {# #} messages m .role ['content'] for in endfor if elif else endif set = == + ~ * "
    "( ) [ ] , | tojson length list range(3) loop.first namespace() macro f(x) endmacro 'x' 1 none true not "
    "and or is defined - . raise_exception('x') strftime_now('%Y') filter upper endfilter call endcall"
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from([*_WORDS.split(" "), "\n"]), max_size=25).map(" ".join))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    with contextlib.suppress(TemplateError):
        ChatTemplate(text).render(
            {"messages": [{"role": "user", "content": "x"}]}, budget=Budget(max_steps=20_000, max_seconds=2)
        )
