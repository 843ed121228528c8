"""The Go template interpreter: a table of cases, Go itself as the peer, limits, fuzzing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llm_engine.templates.errors import TemplateError, TemplateLimitError, TemplateSyntaxError
from llm_engine.templates.gotemplate import Template
from llm_engine.templates.limits import Budget

from tests.support.gates import need_program

HERE = Path(__file__).parent
TABLE = json.loads((HERE / "go_cases.json").read_text())


def as_go(value: Any) -> Any:
    """What Go's JSON decoder makes of a value: every number is a float64."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, dict):
        return {key: as_go(item) for key, item in value.items()}
    return [as_go(item) for item in value] if isinstance(value, list) else value


DATA = as_go(TABLE["data"])


def outcome(text: str, data: Any = DATA) -> tuple[str, str]:
    """(output, error), one of them empty."""
    try:
        return Template(text).execute(data, budget=Budget(max_seconds=2)), ""
    except TemplateError as error:
        return "", str(error)


@pytest.mark.parametrize("case", TABLE["cases"], ids=[case["template"][:40] for case in TABLE["cases"]])
def test_table(case: dict[str, str]) -> None:
    output, error = outcome(case["template"])
    if "output" in case:
        assert (output, error) == (case["output"], "")
    elif case["error"]:
        assert error == case["error"]
    else:  # Go's text differs between its versions
        assert error


@pytest.mark.peer
def test_go_itself_agrees_with_the_table(tmp_path: Path) -> None:
    go = need_program("go")
    program = tmp_path / "main.go"
    program.write_text((HERE / "gopeer" / "main.go").read_text())
    (tmp_path / "go.mod").write_text("module gopeer\n\ngo 1.19\n")
    env = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    ran = subprocess.run(
        [go, "run", "."],
        cwd=tmp_path,
        env=env,
        input=(HERE / "go_cases.json").read_text(),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    for case, theirs in zip(TABLE["cases"], json.loads(ran.stdout), strict=True):
        output, error = outcome(case["template"])
        assert output == theirs["output"], case["template"]
        assert bool(error) == bool(theirs["error"]), case["template"]


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ with .e }}1{{ else with .s }}{{ . }}{{ end }}", "hello"),
        (
            '{{ currentDate }} {{ currentDate "2006" }} {{ yesterdayDate }}',
            "2026-03-01 2026-03-01 2026-02-28",
        ),
    ],
)
def test_what_newer_go_and_ollama_add(text: str, output: str) -> None:
    assert Template(text).execute({"e": "", "s": "hello", "three": 3}, today=date(2026, 3, 1)) == output


@pytest.mark.parametrize(
    "text",
    [
        '{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" }}',
        '{{ define "a" }}{{ template "b" }}{{ template "b" }}{{ end }}'
        '{{ define "b" }}{{ template "a" }}{{ end }}{{ template "a" }}',
        "{{ range 100000000 }}{{ range 100000000 }}{{ end }}{{ end }}",
        "{{ $x := .s }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}",
        '{{ printf "%1000000000d" 1 }}',
        '{{ printf "%*d" 1000000000 1 }}',
        '{{ printf "%.1000000000f" 1.5 }}',
        "{{ range 3000000 }}{{ . }}{{ end }}",
    ],
)
def test_a_template_that_would_never_end_is_stopped(text: str) -> None:
    with pytest.raises(TemplateLimitError):
        Template(text).execute(DATA)


@pytest.mark.parametrize("text", ["{{ (" * 5000, "{{ if .s }}" * 5000, "{{ (" * 5000 + ".s" + ") }}" * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        Template(text)


def test_python_is_out_of_reach() -> None:
    for name in ("__class__", "__init__", "fields", "methods", "execute"):
        output, error = outcome(f"{{{{ .s.{name} }}}}{{{{ .m.{name} }}}}")
        assert not output
        assert "can't evaluate field" in error


_WORDS = (
    "{{ }} {{- -}} . .s .l .ll .m $ $x := = | ( ) , if else end range with define template block break "
    "continue \"x\" `r` 'c' 1 -2 1.5e9 true nil len index slice print printf eq lt and or not json html js "
    "call text /* */ \\ é \x00"
)
_PIECES = st.sampled_from([*_WORDS.split(" "), " ", "\n", '"%d %v %s"'])


@settings(max_examples=1500, deadline=None)
@given(st.lists(_PIECES, max_size=25).map(" ".join) | st.text(max_size=60).map(lambda t: "{{" + t + "}}"))
@example("{{ printf (printf")
def test_any_text_is_executed_or_refused(text: str) -> None:
    with contextlib.suppress(TemplateError):
        Template(text).execute(DATA, budget=Budget(max_steps=20_000, max_chars=200_000, max_seconds=2))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damaged_templates_are_executed_or_refused(data: st.DataObject) -> None:
    """Templates of the table with a piece cut out or moved."""
    case = data.draw(st.sampled_from(TABLE["cases"]))["template"]
    at, to = sorted(data.draw(st.tuples(*[st.integers(0, len(case))] * 2)))
    text = case[:at] + data.draw(_PIECES | st.just("")) + case[to:]
    with contextlib.suppress(TemplateError):
        Template(text).execute(DATA, budget=Budget(max_steps=20_000, max_chars=200_000, max_seconds=2))
