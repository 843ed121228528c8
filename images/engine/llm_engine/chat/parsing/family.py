"""The families of models: how each writes thinking and tool calls, and how it is recognised.

A family is recognised by marks in the model's template, because that is the text the model was trained to
continue; the parser name in a model's config (Ollama's) comes first where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_engine.chat.parsing import bodies, forms, pairs
from llm_engine.chat.parsing.forms import Form
from llm_engine.chat.parsing.values import Body

THINK = ("<think>", "</think>")


@dataclass(frozen=True)
class Family:
    name: str
    marks: Sequence[Sequence[str]] = ()
    """Groups of texts; a template with all texts of one group belongs to the family."""
    parsers: Sequence[str] = ()
    """Ollama's names for it."""
    thinking: tuple[str, str] = THINK
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    """Empty: a call ends with its JSON."""
    body: Body = bodies.json_body
    bodies_by_tag: dict[str, tuple[tuple[str, ...], Body]] = field(default_factory=dict)
    example: str = '{"name": "<tool name>", "arguments": {<its arguments>}}'
    """How a call is written, for templates that do not tell the model themselves."""
    form: Form | None = None
    """How calls are written; None: not in a form that a grammar here holds, so a bare call is forced."""
    noise: tuple[str, ...] = ()
    """Tags that carry nothing and never reach the client."""
    bare: bool = False
    """Calls stand without tags at the beginning of the answer."""
    special: bool = False
    """Its tags are control tokens, which the runner must then show."""
    always: bool = False
    """Also when no tools were given (its thinking tags are control tokens)."""
    rethinks: bool = False
    """Thinking may begin again after text."""
    thinks: bool = False
    """Always thinks, whatever the template says."""
    stops: tuple[str, ...] = ()

    @property
    def stray_closes(self) -> tuple[str, ...]:
        """Closing tags that mean nothing in a text."""
        every = (*self.closes, *(tag for closes, _ in self.bodies_by_tag.values() for tag in closes))
        return tuple(dict.fromkeys(tag for tag in every if tag != "```"))

    def closes_for(self, tag: str) -> tuple[str, ...]:
        return self.bodies_by_tag[tag][0] if tag in self.bodies_by_tag else self.closes

    def body_for(self, tag: str) -> Body:
        return self.bodies_by_tag[tag][1] if tag in self.bodies_by_tag else self.body


PLAIN = Family("plain", parsers=("passthrough",))
GENERIC = Family("generic", bare=True, form=forms.BARE)

_QWEN_PARSERS = (
    "qwen3", "qwen3-thinking", "qwen3-vl-instruct", "qwen3-vl-thinking", "ornith", "cogito", "glm-ocr",
)  # fmt: skip
_CODER_PARSERS = ("qwen3-coder", "qwen3.5", "nemotron-3-nano", "nemotron-3.5-nano")
_DEEPSEEK_NOISE = tuple(
    f"<｜tool{gap}{word}｜>" for gap in ("▁", "_", " ") for word in (f"calls{gap}begin", f"calls{gap}end")
)


def _mistral(name: str, marks: Sequence[Sequence[str]], form: Form, parsers: Sequence[str] = ()) -> Family:
    """Older models write a list of calls, newer ones a name and its arguments; both are read alike."""
    return Family(
        name,
        marks=marks,
        parsers=parsers,
        thinking=("[THINK]", "[/THINK]"),
        opens=("[TOOL_CALLS]",),
        body=bodies.named_body,
        form=form,
        special=True,
        always=True,
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        "harmony",
        marks=[("<|channel|>", "<|start|>", "<|message|>")],
        parsers=("harmony",),
        thinking=("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
        form=forms.HARMONY,
        special=True,
        always=True,
        thinks=True,
    ),
    Family(
        "gemma4",
        marks=[("<|tool_call>", "<tool_call|>")],
        parsers=("gemma4", "gemma4-no-thinking"),
        thinking=("<|channel>thought", "<channel|>"),
        opens=("<|tool_call>",),
        closes=("<tool_call|>",),
        body=bodies.gemma_body,
        form=forms.GEMMA4,
        noise=("<channel|>", "<turn|>", "<|tool_response>"),
        special=True,
        always=True,
        rethinks=True,
    ),
    Family(
        "functiongemma",
        marks=[("<start_function_call>",)],
        parsers=("functiongemma",),
        opens=("<start_function_call>",),
        closes=("<end_function_call>",),
        body=bodies.gemma_body,
        form=forms.FUNCTIONGEMMA,
        noise=("<start_function_response>",),
        special=True,
    ),
    Family(
        "deepseek-dsml",
        marks=[("｜DSML｜",), ("dsml_token",)],
        opens=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
        closes=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
        body=pairs.invoke_body,
        noise=("<｜end▁of▁sentence｜>",),
        special=True,
    ),
    Family(
        "deepseek",
        marks=[("<｜tool▁call▁begin｜>",), ("<｜tool▁calls▁begin｜>",), ("<｜Assistant｜>",)],
        parsers=("deepseek3",),
        opens=("<｜tool▁call▁begin｜>",),
        closes=("<｜tool▁call▁end｜>",),
        body=bodies.deepseek_body,
        form=forms.DEEPSEEK,
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><tool name><｜tool▁sep｜>{<its arguments>}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        noise=(*_DEEPSEEK_NOISE, "<｜end▁of▁sentence｜>"),
        special=True,
    ),
    Family(
        "kimi",
        marks=[("<|tool_call_begin|>",)],
        opens=("<|tool_call_begin|>",),
        closes=("<|tool_call_end|>",),
        body=bodies.kimi_body,
        form=forms.KIMI,
        noise=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        special=True,
    ),
    _mistral(
        "mistral-args",
        marks=[("[TOOL_CALLS]", "[ARGS]")],
        parsers=("ministral",),
        form=forms.MISTRAL_ARGS,
    ),
    _mistral(
        "mistral",
        marks=[("[TOOL_CALLS]",)],
        form=forms.MISTRAL,
    ),
    Family(
        "command-r7b",
        marks=[("<|START_ACTION|>",)],
        parsers=("cohere",),
        thinking=("<|START_THINKING|>", "<|END_THINKING|>"),
        opens=("<|START_ACTION|>",),
        closes=("<|END_ACTION|>",),
        form=forms.COMMAND_R7B,
        noise=(
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
            "<|START_TEXT|>",
            "<|END_TEXT|>",
            "<|END_OF_TURN_TOKEN|>",
        ),
        special=True,
        always=True,
        rethinks=True,
    ),
    Family(
        "command-r",
        marks=[("Action:", "<|CHATBOT_TOKEN|>")],
        opens=("Action: ```json", "Action:```json"),
        closes=("```",),
        form=forms.COMMAND_R,
    ),
    Family(
        "minimax",
        marks=[("<minimax:tool_call>",)],
        opens=("<minimax:tool_call>",),
        closes=("</minimax:tool_call>",),
        body=pairs.invoke_body,
        special=True,
    ),
    Family(
        "seed-oss",
        marks=[("<seed:tool_call>",)],
        thinking=("<seed:think>", "</seed:think>"),
        opens=("<seed:tool_call>",),
        closes=("</seed:tool_call>",),
        body=pairs.xml_body,
        form=forms.SEED_OSS,
        special=True,
        always=True,
    ),
    Family(
        "lfm2",
        marks=[("<|tool_call_start|>",), ("<|tool_list_start|>",), ("<|tool_response_start|>",)],
        parsers=("lfm2", "lfm2-thinking"),
        opens=("<|tool_call_start|>",),
        closes=("<|tool_call_end|>",),
        body=lambda text, tools: bodies.python_body(text, tools) or bodies.json_body(text, tools),
        special=True,
    ),
    Family(
        "solar-open",
        marks=[("<|tool_call:begin|>",)],
        thinking=("<|think|>", "<|end|>"),
        opens=("<|tool_call:begin|>",),
        closes=("<|tool_call:end|>",),
        body=bodies.solar_body,
        form=forms.SOLAR,
        noise=("<|tool_calls|>",),
        special=True,
    ),
    Family(
        "apertus",
        marks=[("<|tools_prefix|>",)],
        opens=("<|tools_prefix|>",),
        closes=("<|tools_suffix|>",),
        thinking=("<|inner_prefix|>", "<|inner_suffix|>"),
        special=True,
        always=True,
        rethinks=True,
    ),
    Family(
        "nemotron",
        marks=[("<TOOLCALL>",)],
        opens=("<TOOLCALL>",),
        closes=("</TOOLCALL>",),
        form=forms.NEMOTRON,
    ),
    Family("firefunction", marks=[("functools[",)], opens=("functools",), form=forms.FIREFUNCTION),
    Family(
        "minicpm",
        marks=[('<function name="', "<param name=")],
        opens=('<function name="',),
        closes=("</function>",),
        body=pairs.param_body,
    ),
    Family(
        "granite",
        marks=[("<|tool_call|>",)],
        opens=("<|tool_call|>", "<tool_call>"),
        form=forms.GRANITE,
        noise=("<response>", "</response>"),
        special=True,
    ),
    Family(
        "qwen3-coder",
        marks=[("<function=", "<parameter=")],
        parsers=_CODER_PARSERS,
        opens=("<tool_call>", "<function="),
        closes=("</tool_call>",),
        body=bodies.tool_call_body,
        bodies_by_tag={"<function=": (("</function>",), pairs.function_body)},
        form=forms.QWEN_CODER,
        noise=("</tool_call>",),
    ),
    Family(
        "glm",
        marks=[("<arg_key>",)],
        parsers=("glm-4.7", "laguna", "poolside-v1"),
        opens=("<tool_call>",),
        closes=("</tool_call>",),
        body=lambda text, tools: bodies.tool_call_body(text, tools) or pairs.glm_body(text, tools),
        special=True,
        always=True,
    ),
    Family(
        "olmo3",
        marks=[("<function_calls>",)],
        parsers=("olmo3", "olmo3-think"),
        opens=("<function_calls>",),
        closes=("</function_calls>",),
        body=lambda text, tools: bodies.python_body(text, tools) or bodies.json_body(text, tools),
    ),
    Family(
        "hermes",
        marks=[("<tool_call>",)],
        parsers=_QWEN_PARSERS,
        form=forms.HERMES,
        opens=("<tool_call>",),
        closes=("</tool_call>",),
        body=bodies.tool_call_body,
    ),
    Family("tool-calls", marks=[("<tool_calls>",)], opens=("<tool_calls>",), closes=("</tool_calls>",)),
    Family(
        "functionary",
        marks=[("<function=",)],
        opens=("<function=",),
        closes=("</function>",),
        form=forms.FUNCTIONARY,
        body=pairs.function_body,
    ),
    Family(
        "llama3",
        marks=[("<|start_header_id|>",), ("<|python_tag|>",)],
        opens=("<|python_tag|>",),
        form=forms.LLAMA3,
        bare=True,
        special=True,
    ),
)
