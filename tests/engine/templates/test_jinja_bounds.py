"""One call of a template must not freeze the server or fill its memory: the budget is read between calls."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest
from llm_engine.templates.errors import TemplateError, TemplateExecError, TemplateLimitError
from llm_engine.templates.jinja import ChatTemplate
from llm_engine.templates.jinja.bounds import FILTERS, METHODS

_DOUBLED = "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
_DOUBLED += "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
_KEY = "{% set n = namespace(t=(1,)) %}{% for i in range(60) %}{% set n.t = (n.t, n.t) %}{% endfor %}"

COSTLY = [
    "{% set n = messages|length - 1000000000 %}{{ 5|round(n) }}",
    "{{ 1|round(10**9, 'ceil') }}",
    "{{ [1]|map('round', 10**9, 'ceil')|list }}",
    "{{ '\\t'.expandtabs(tabsize=10**9)|length }}",
    "{{ (['a' * 1000000] * 1500)|map('upper')|join|length }}",
    "{{ ','.join((['a' * 1000000] * 1500)|map('upper'))|length }}",
    "{{ ('a' * 1000000)|wordwrap(1)|length }}",
    "{{ ('\\n' * 1000000)|indent('x' * 1000000)|length }}",
    "{{ ('a' * 1000000)|replace('a', 'b' * 1000000)|length }}",
    "{{ ('%(a)s' * 100000) % {'a': 'x' * 1000000} }}",
    "{{ ('%(a)s' * 100000)|format(a='x' * 1000000) }}",
    "{{ ('{0}' * 100000).format('x' * 1000000) }}",
    "{{ ('{a}' * 100000).format_map({'a': 'x' * 1000000}) }}",
    "{{ ('%99999d' * 100000) % ((1,) * 100000) }}",
    "{{ ['x' * 1000000] * 1500 }}",
    "{{ (['x' * 1000000] * 1500) ~ '' }}",
    "{{ (['x' * 1000000] * 1500)|string|length }}",
    "{{ ([[1] * 1000] * 100000)|sum(start=[])|length }}",
    "{% set l = [1] %}{% for i in range(40) %}{% set _ = l.extend(l) %}{% endfor %}",
    "{% set b = 'x' * 1000000 %}{% set l = [] %}"
    "{% for i in range(9000) %}{% set _ = l.append(b[1:]) %}{% endfor %}",
    "{% set x %}{% for i in range(100000) %}" + "a" * 100_000 + "{% endfor %}{% endset %}",
    "{% macro m() %}{{ 'x' * 1000000 }}{% endmacro %}{% set l = [] %}"
    "{% for i in range(9000) %}{% set _ = l.append(m()) %}{% endfor %}",
    _DOUBLED + "{{ n.a == n.b }}",
    _DOUBLED + "{{ n.a is eq(n.b) }}",
    _DOUBLED + "{{ [n.a]|unique|list }}",
    _KEY + "{{ {n.t: 1} }}",
    _DOUBLED + "{{ n.a|tojson }}",
    _DOUBLED + "{{ n.a }}",
]


def test_what_one_call_would_make_is_refused_before_it_is_made() -> None:
    # In a process with little memory and time: without the bounds it would take this one along.
    ran = _alone(COSTLY)
    assert ran.returncode == 0, ran.stderr[-500:]
    assert ran.stdout.split() == ["TemplateLimitError"] * len(COSTLY)


@pytest.mark.parametrize(
    "call", ["(5).to_bytes(9, 'big')", "'x'.encode()", "'x'.translate({1: 2})", "5.0.hex()"]
)
def test_methods_off_the_list_are_not_there(call: str) -> None:
    with pytest.raises(TemplateExecError, match="not allowed"):
        ChatTemplate("{{ " + call + " }}").render({})


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("{{ 3.14159|round(2) }}", "3.14"),
        ("{{ 7.5|round(0, 'floor') }}", "7.0"),
        ("{{ ('a b ' * 3).split()|join('+') }}", "a+b+a+b+a+b"),
        ("{{ messages|map(attribute='role')|join(',') }}", "user"),
        ("{{ ','.join(messages|map(attribute='role')) }}", "user"),
        ("{% set l = [1] %}{% set _ = l.extend([2]|map('string')) %}{{ l }}", "[1, '2']"),
        ("{{ 'a\\nb'|indent(2, true) }}", "  a\n  b"),
        ("{{ '{:>5}'.format('x') }}{{ '%-3s|' % 'y' }}", "    xy  |"),
        ("{{ [1, 2, 3]|sum }}{{ 'a%sc'|format('b') }}", "6abc"),
        ("{{ 4000000|default(1) }} {{ [5]|select('gt', 4) | list }}", "4000000 [5]"),
        ("{{ {(1, 2): 3}[(1, 2)] }}{{ [1] == [1] }}{{ 'a' in ['a'] }}", "3TrueTrue"),
        ("{{ 'x' ~ [1] ~ none }}{{ messages[0:1]|tojson }}", 'x[1]None[{"role": "user"}]'),
    ],
)
def test_the_bounds_leave_ordinary_work_alone(source: str, output: str) -> None:
    assert ChatTemplate(source).render({"messages": [{"role": "user"}]}) == output


def _every_call() -> list[str]:
    """Every filter and every method of the plain types, given large and negative numbers, texts and lists."""
    values = ["5", "t", "['a', t]", "[t] * 900", "{'a': t}"]
    given = [
        "",
        "10**9",
        "-10**9",
        "t",
        "t, t",
        "10**9, t",
        "10**9, 'ceil'",
        "[t] * 900",
        "'a', t",
        "start=[t]",
    ]
    calls = [f"{v}|{name}({g})" for v, name, g in product(values, sorted(FILTERS), given)]
    calls += [f"[t]|map('{name}', {g})|list" for name, g in product(sorted(FILTERS), given[1:])]
    owners = {"5": int, "2.5": float, "t": str, "n": str, "([t] * 900)": list, "{'a': t}": dict}
    given = ["", "10**9", "t, t", "10**9, t", "tabsize=10**9", "[t] * 900", "t|list"]
    for owner, kind in owners.items():
        names = sorted({*METHODS[kind], *(name for name in dir(kind) if not name.startswith("_"))})
        calls += [f"{owner}.{name}({g})" for name, g in product(names, given)]
    return ["{% set t = 'a\\t ' * 30000 %}{% set n = '\\n' * 60000 %}{{ (" + c + ")|length }}" for c in calls]


def test_no_filter_and_no_method_takes_the_process_along() -> None:
    calls = _every_call()
    ran = _alone(calls)
    assert ran.returncode == 0, ran.stderr[-500:]
    outcomes = ran.stdout.split()
    assert len(outcomes) == len(calls)
    assert {"rendered", "TemplateLimitError", "TemplateExecError"} == set(outcomes)


def _alone(sources: list[str]) -> subprocess.CompletedProcess[str]:
    """All in one child: it is killed past 8 s of CPU time for any of them, and 700 MB are all there is."""
    argv = [sys.executable, __file__]
    return subprocess.run(argv, input="\0".join(sources), capture_output=True, text=True, timeout=240)


def _child() -> None:
    import resource
    import signal
    import time

    resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
    for source in sys.stdin.read().split("\0"):
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + 8, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        try:
            ChatTemplate(source).render({"messages": [1]})
        except TemplateLimitError as error:
            if "used too much" in str(error):
                sys.exit(f"out of memory: {source[:200]}")
            print("TemplateLimitError")
        except TemplateError as error:
            print(type(error).__name__)
        else:
            print("rendered")


if __name__ == "__main__":
    _child()
