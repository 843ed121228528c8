"""Building prompts: both template languages, turn by turn, pictures, thinking, and which language is used."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from llm_engine.chat import parsing, prompt
from llm_engine.chat.merging import merge
from llm_engine.chat.messages import Call, Message, Tool
from llm_engine.chat.model import ChatModel
from llm_engine.templates.errors import TemplateSyntaxError

CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
WITH_TOOLS = (
    "{{- range .Messages }}[{{ .Role }}]{{ .Content }}{{ range .ToolCalls }}<tool_call>"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}\n{{ end }}'
    "{{ .Tools }}[assistant]"
)
JINJA = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOOL = Tool(
    "f",
    "d",
    {
        "type": "object",
        "required": ["b"],
        "properties": {
            "b": {"type": "string", "description": "B"},
            "a": {"type": ["integer", "null"], "default": 1},
        },
    },
)


def text(model: ChatModel, *messages: Message, **options: object) -> str:
    return prompt.build(model, messages, **options).text  # type: ignore[arg-type]


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


def system(content: str) -> Message:
    return Message("system", content)


GO = ChatModel("go", go_source=CHATML)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("a")], "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
        (
            [system("s"), user("a"), assistant("b"), user("c")],
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
        ),
        ([user("a"), user("b")], "<|im_start|>user\na\n\nb<|im_end|>\n<|im_start|>assistant\n"),
        # An answer that is begun stays open.
        ([user("a"), assistant("b")], "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb"),
        # A system message after a turn closes that turn.
        (
            [user("a"), system("s"), user("b")],
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_templates_that_know_turns(messages: list[Message], expected: str) -> None:
    assert text(GO, *messages) == expected


def test_a_model_without_any_template_gets_the_prompt_alone() -> None:
    assert text(ChatModel("bare"), user("hi")) == "hi"


def test_a_template_without_response_gets_one_at_its_end() -> None:
    model = ChatModel("x", go_source="U:{{ .Prompt }} A:")
    assert text(model, user("a"), assistant("b"), user("c")) == "U:a A:bU:c A:"


def test_text_after_the_open_response_is_cut_also_inside_a_branch() -> None:
    model = ChatModel("x", go_source="{{ .Prompt }}{{ if .Response }}>{{ .Response }}<{{ else }}>{{ end }}!")
    assert text(model, user("a")) == "a"
    assert text(model, user("a"), assistant("b")) == "a>b"


def test_messages_tools_and_calls_in_go() -> None:
    messages = [user("q"), Message("assistant", "", tool_calls=[Call("f", {"b": "<x>", "a": 1})])]
    messages.append(Message("tool", "r", tool_name="f"))
    shown = text(ChatModel("x", go_source=WITH_TOOLS), *messages, tools=[TOOL])
    tools = (
        '[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","required":["b"],'
        '"properties":{"b":{"type":"string","description":"B"},"a":{"type":["integer","null"],"default":1}}}}}]'
    )
    call = '<tool_call>{"name": "f", "arguments": {"a":1,"b":"\\u003cx\\u003e"}}</tool_call>'
    assert shown == f"[user]q\n[assistant]{call}\n[tool]r\n{tools}[assistant]"


def test_typescript_types_in_go() -> None:
    schema = {
        "a": {"type": "string"},
        "b": {"type": "array", "items": {"type": "integer"}},
        "c": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "d": {"type": ["number", "null"]},
        "e": {"type": "object"},
        "f": {},
    }
    source = (
        "{{ .Messages }}{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}"
        "{{ $n }}:{{ $p.ToTypeScriptType }}={{ toTypeScriptType $p }} {{ end }}{{ end }}"
    )
    shown = text(ChatModel("x", go_source=source), tools=[Tool("f", parameters={"properties": schema})])
    types = ("string", "number[]", "boolean | null", "number | null", "Record<string, any>", "any")
    assert shown == "[]" + "".join(f"{n}:{t}={t} " for n, t in zip("abcdef", types, strict=True))


def test_thinking_values_in_go() -> None:
    model = ChatModel("x", go_source="{{ .IsThinkSet }} {{ .Think }} {{ .ThinkLevel }}|{{ len .Messages }}")
    assert text(model, user("a")) == "false false |1"
    assert text(model, user("a"), think=True) == "true true medium|1"
    assert text(model, user("a"), think="high") == "true true high|1"
    assert text(model, user("a"), think=False) == "true false |1"


def test_dates_are_the_servers_day() -> None:
    model = ChatModel("x", go_source="{{ currentDate }} {{ .Prompt }}")
    now = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert prompt.build(model, [user("a")], now=now).text == "2026-01-01 a"


def test_fill_in_the_middle_and_raw() -> None:
    model = ChatModel("x", go_source="{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ end }}")
    assert prompt.complete(model, "a", "b").text == "<P>a<S>b<M>"
    assert prompt.raw(model, "{{ .x }}").text == "{{ .x }}"


def test_a_template_in_the_request_replaces_the_models() -> None:
    assert text(GO, user("a"), template="<{{ .Prompt }}>") == "<a>"
    with pytest.raises(TemplateSyntaxError, match="unclosed action"):
        text(GO, user("a"), template="{{ .Prompt")


def test_pictures_stand_before_the_text_or_at_their_mark() -> None:
    messages = [
        Message("user", "what?", images=[b"1", b"2"]),
        assistant("x"),
        Message("user", "[img] or", images=[b"3"]),
    ]
    built = prompt.build(GO, messages)
    assert "user\n[img-0][img-1]what?<" in built.text
    assert "user\n[img-2] or<" in built.text
    assert [piece for piece in built.pieces if isinstance(piece, bytes)] == [b"1", b"2", b"3"]
    assert built.images == 3
    together = "".join("#" if isinstance(piece, bytes) else piece for piece in built.pieces)
    assert together == built.text.replace("[img-0]", "#").replace("[img-1]", "#").replace("[img-2]", "#")


def test_a_user_cannot_forge_a_picture() -> None:
    built = prompt.build(GO, [Message("user", "[img-0] <media-0>", images=[b"1"])])
    assert [piece for piece in built.pieces if isinstance(piece, bytes)] == [b"1"]


def test_jinja_gets_the_openai_shape() -> None:
    model = ChatModel("x", jinja_source=JINJA, bos="<s>")
    messages = [user("q"), Message("assistant", "", tool_calls=[Call("f", {"b": "<", "a": 1}, "c1")])]
    messages.append(Message("tool", "r", tool_name="f", tool_call_id="c1"))
    built = prompt.build(model, messages, tools=[TOOL])
    call = '{"name": "f", "arguments": {"b": "<", "a": 1}}'
    tools = json.dumps([TOOL.as_json()])
    assert built.text == f"<s><user>q<assistant><tool_call>{call}</tool_call><tool>r{tools}<assistant>"
    assert built.add_special is False, "the template has written the begin token"


def test_jinja_continues_an_answer_that_is_begun() -> None:
    assert text(ChatModel("x", jinja_source=JINJA), user("a"), assistant("b")) == "<user>a<assistant>b"


def test_jinja_adapts_to_what_a_template_refuses() -> None:
    strict = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    model = ChatModel("x", jinja_source=strict)
    assert text(model, system("s"), user("a"), user("b")) == "<user>s\n\na\n\nb<assistant>"
    spoken = text(
        model,
        user("a"),
        Message("assistant", "", tool_calls=[Call("f", {"x": 1})]),
        Message("tool", "r", tool_name="f"),
        tools=[TOOL],
    )
    assert '<assistant>{"name": "f", "arguments": {"x": 1}}<user>Result of f:\nr' in spoken
    assert "You can call these tools" in spoken


def test_jinja_typed_content_and_short_call_ids() -> None:
    typed = (
        "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    assert text(ChatModel("x", jinja_source=typed), user("hi")) == "<user>hi"
    ids = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
        "{{ raise_exception('ids have 9 characters') }}{% endif %}[{{ c.id }}]"
        "{{ c.function.arguments | tojson }}"
        "{% endfor %}{% if m.role == 'tool' %}({{ m.tool_call_id }}){% endif %}{% endfor %}{{ tools }}"
    )
    call = Message("assistant", "", tool_calls=[Call("f", {}, "call_12345678")])
    shown = text(
        ChatModel("x", jinja_source=ids), user("q"), call, Message("tool", "r", tool_call_id="call_12345678")
    )
    made = shown.partition("[")[2][:9]
    assert f"r({made})" in shown


@pytest.mark.parametrize(
    ("go", "jinja", "options", "uses_jinja"),
    [
        (CHATML, None, {}, False),
        (None, JINJA, {}, True),
        (None, None, {}, False),
        (CHATML, JINJA, {}, True),  # the Jinja template knows tools, the Go template does not
        (WITH_TOOLS, JINJA, {}, False),
        (WITH_TOOLS, JINJA, {"prefer_go": False}, True),
        (WITH_TOOLS, JINJA, {"renderer": "qwen3-coder"}, True),
        (WITH_TOOLS, None, {"renderer": "qwen3-coder"}, False),
        (CHATML, "{% broken", {}, False),
        (CHATML, "{{ raise_exception('never') }}", {}, False),
    ],
)
def test_which_language_is_used(go: str, jinja: str, options: dict[str, object], uses_jinja: bool) -> None:
    model = ChatModel("x", go_source=go, jinja_source=jinja, **options)  # type: ignore[arg-type]
    assert model.uses_jinja is uses_jinja


def test_thinking_is_on_by_default_where_the_model_can() -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}<think></think>"
        "{% else %}<think>{% endif %}"
    )
    model = ChatModel("x", jinja_source=source)
    assert parsing.can_think(model)
    built = prompt.build(model, [user("a")])
    assert built.think is True
    assert built.parser().feed("so</think>yes") == [parsing.Thinking("so"), parsing.Content("yes")]
    off = prompt.build(model, [user("a")], think=False)
    assert off.text.endswith("<think></think>")
    assert off.parser().feed("<think>still</think>yes") == [parsing.Content("yes")]


@pytest.mark.parametrize("before", [[], [system("s")]], ids=["alone", "behind a system text"])
@pytest.mark.parametrize(
    "insists",
    [
        "{% if messages[-1].role == 'tool' %}{% endif %}",
        "{% if not messages or messages[-1].role != 'user' %}{{ raise_exception('no user') }}{% endif %}",
    ],
    ids=["looks at the last message", "insists on a user"],
)
def test_an_answer_that_is_begun_needs_no_question(insists: str, before: list[Message]) -> None:
    model = ChatModel("x", jinja_source=insists + JINJA)
    shown = text(model, *before, assistant("It was a dark"))
    assert shown.endswith("<assistant>It was a dark")
    assert ("<system>s" in shown) == bool(before)


def test_merging_keeps_pictures_calls_and_tool_results() -> None:
    calls = (Call("f", {}, "1"), Call("g", {}, "2"))
    messages = [
        Message("user", "a", images=[b"1"]),
        Message("user", "b", images=[b"2"]),
        Message("assistant", "", tool_calls=calls[:1]),
        Message("assistant", "", tool_calls=calls[1:]),
        Message("tool", "r1"),
        Message("tool", "r2"),
    ]
    assert merge(messages) == [
        Message("user", "a\n\nb", images=(b"1", b"2")),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "r1"),
        Message("tool", "r2"),
    ]


def test_the_tag_of_calls_is_read_from_a_go_template() -> None:
    calls = "{{ if .ToolCalls }}<|calls|>[{{ range .ToolCalls }}{{ . }}{{ end }}]{{ end }}"
    source = f"{{{{ range .Messages }}}}{calls}{{{{ end }}}}"
    built = prompt.build(ChatModel("x", go_source=source), [user("a")], tools=[TOOL])
    parser = built.parser()
    events = [*parser.feed('ok <|calls|>[{"name": "f", "arguments": {"b": "1"}}]'), *parser.finish()]
    assert events == [parsing.Content("ok"), parsing.ToolCall("f", {"b": "1"})]
