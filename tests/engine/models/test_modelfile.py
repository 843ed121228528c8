"""Modelfiles: the grammar, the errors, and that what is written reads back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_engine.chat.parsing.family import FAMILIES, PLAIN
from llm_engine.models.builtins import PARSERS
from llm_engine.models.modelfile import Command, ModelfileError, parse, quote, render


def commands(text: str) -> list[tuple[str, str, str]]:
    return [(c.name, c.key, c.value) for c in parse(text).commands]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM llama3", [("from", "", "llama3")]),
        ("from  llama3  \r\n", [("from", "", "llama3")]),
        ("  # a comment\n\tFrom x # not a comment", [("from", "", "x # not a comment")]),
        ("FROM x\nSYSTEM hi\n#FROM y", [("from", "", "x"), ("system", "", "hi")]),
        ('FROM x\nSYSTEM " hi "', [("from", "", "x"), ("system", "", " hi ")]),
        ('FROM x\nSYSTEM """a\n\n "b" c\n"""', [("from", "", "x"), ("system", "", 'a\n\n "b" c\n')]),
        ('FROM x\nSYSTEM "a" b\nc"', [("from", "", "x"), ("system", "", 'a" b\nc')]),
        ("FROM x\nSYSTEM 'single'", [("from", "", "x"), ("system", "", "'single'")]),
        ('FROM x\nSYSTEM """"quoted""""', [("from", "", "x"), ("system", "", '"quoted"')]),
        ('FROM x\nTEMPLATE ""', [("from", "", "x"), ("template", "", "")]),
        ("FROM x\nMESSAGE User  hello there", [("from", "", "x"), ("message", "user", "hello there")]),
        ("FROM x\nPARAMETER  stop  <|im_end|>", [("from", "", "x"), ("parameter", "stop", "<|im_end|>")]),
        ("FROM ./a b.gguf\nFROM ./mmproj.gguf", [("from", "", "./a b.gguf"), ("from", "", "./mmproj.gguf")]),
        ("FROM x\nREQUIRES 0.14.0", [("from", "", "x"), ("requires", "", "0.14.0")]),
        ("FROM x\nSYSTEM \u0007be\u200dll", [("from", "", "x"), ("system", "", "be\u200dll")]),
    ],
)
def test_values(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert commands(text) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    assert parse("FROM x\nSYSTEM Grüße 🙂".encode(encoding)).last("system") == "Grüße 🙂"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM x\n\nFORM y", '(line 3): command must be one of "from", "license",'),
        ("FORM y", '(did you mean "from"?)'),
        ("FROM", "(line 1): FROM needs a value"),
        ('FROM x\nSYSTEM """open\nand\nopen', "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM "open', "(line 2): unexpected EOF"),
        ("FROM x\nMESSAGE tool hi", '(line 2): message role must be one of "system", "user", or "assistant"'),
        (
            "FROM x\nPARAMETER tempreture 1",
            "(line 2): unknown parameter 'tempreture' (did you mean 'temperature'?)",
        ),
        ("FROM x\nPARAMETER num_ctx big", "(line 2): invalid int value [big]"),
        ("FROM x\nPARAMETER num_ctx 1.5", "(line 2): invalid int value [1.5]"),
        ("FROM x\nPARAMETER temperature nan", "(line 2): invalid float value [nan]"),
        ("FROM x\nPARAMETER use_mmap maybe", "(line 2): invalid bool value [maybe]"),
        ("FROM x\nPARAMETER num_ctx", "(line 2): PARAMETER num_ctx needs a value"),
        ("FROM x\nREQUIRES soon", "(line 2): requires must be a valid semver (e.g. 0.14.0)"),
    ],
)
def test_mistakes_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ModelfileError, match=r"\(line 2\): not UTF-8 or UTF-16"):
        parse(b"FROM x\nSYSTEM \xff\xfe\xfd")


def test_parameters_are_typed_and_stops_collect() -> None:
    found = parse(
        "FROM x\nPARAMETER stop a\nPARAMETER num_ctx 512\nPARAMETER stop b\nPARAMETER num_ctx 4096.0\n"
        "PARAMETER temperature 0.5\nPARAMETER use_mmap false\nPARAMETER f16_kv true"
    )
    assert found.parameters == {"stop": ["a", "b"], "num_ctx": 4096, "temperature": 0.5, "use_mmap": False}
    assert found.warnings == ("warning: parameter f16_kv is deprecated",)


def test_what_ollama_prints() -> None:
    written = [
        Command("from", "/models/blobs/sha256-00"),
        Command("template", "{{ .System }}\n{{ .Prompt }}"),
        Command("system", ' says "hi"'),
        Command("parameter", "<|im_end|>", "stop"),
        Command("message", "hi", "user"),
    ]
    assert render(written, ["top"]) == (
        "# top\n\nFROM /models/blobs/sha256-00\n"
        'TEMPLATE "{{ .System }}\n{{ .Prompt }}"\n'
        'SYSTEM """ says "hi""""\n'
        "PARAMETER stop <|im_end|>\nMESSAGE user hi\n"
    )
    assert list(parse(render(written)).commands) == written


_text = st.text(alphabet=st.sampled_from("ab \"\n\t#{}\\'é🙂"), max_size=30) | st.text(
    alphabet=st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"), max_size=30
)


def _sayable(value: str) -> bool:
    """No form exists for a text that closes both kinds of quotes at the end of an inner line."""
    from llm_engine.models.modelfile import _reads_back

    bare = "\n" not in value and value == value.strip() and not value.startswith('"')
    return bare or _reads_back(f'"{value}"', value) or _reads_back(f'"""{value}"""', value)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["template", "system", "license", "message", "parameter"]), _text)))
def test_what_is_written_reads_back(parts: list[tuple[str, str]]) -> None:
    written = [Command("from", "base:latest")]
    for name, value in parts:
        if not _sayable(value) or (name == "parameter" and not value):
            continue
        written.append(Command(name, value, {"message": "user", "parameter": "stop"}.get(name, "")))
    assert list(parse(render(written, ["x"])).commands) == written


def test_only_texts_that_close_every_quote_cannot_be_said() -> None:
    assert _sayable('a"\nb') and _sayable('a"""\nb"x') is False
    assert quote('say """\nand "more').startswith('"')


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.text(alphabet='FROM SYSTEMPARAMETER stop"\n#x', max_size=80).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ModelfileError):
        parse(data)


def test_every_parser_of_the_chat_side_can_be_named() -> None:
    assert {name for family in (PLAIN, *FAMILIES) for name in family.parsers} <= PARSERS
