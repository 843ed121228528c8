"""How a family writes calls: from it come the grammars that hold a call to its tool.

In these texts `{name}` stands for the tool's name, `{number}` for the number of the call and `{id}` for an
identifier of the model's own. In `free` a blank stands for any white space, or none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """A call that must be made is written in exactly this way; its arguments are JSON."""

    call: str
    """What stands before the arguments of a call."""
    after: str = ""
    """What stands behind them."""
    open: str = ""
    """What stands before the first call, and before it alone."""
    close: str = ""
    """What stands behind the last call."""
    between: str | None = "\n"
    """What stands between two calls; None: this family makes one call at a time."""
    wakes: str = ""
    """A regular expression for the beginning by which a call of the model's own will can be told from other
    text (`{names}` are the tools', `{opens}` the family's tags); its group is where `free` begins. Empty:
    such calls are not held to anything.
    """
    free: tuple[tuple[str, str], ...] = ()
    """The ways in which models write a call of their own will: before and behind its arguments."""
    separator: str = " "
    """What stands between two of those."""
    end: str = ""
    """What stands behind the last of those."""
    tags: bool = False
    """Whether the arguments of those are `<parameter=key>` tags, and not JSON."""
    quote: str = ""
    """Where the arguments of those are in Gemma's notation, what stands around a text."""


def _free(lead: str, *keys: str, tail: str = "") -> tuple[tuple[str, str], ...]:
    return tuple((f'{lead}{{ "name" : "{{name}}" , "{key}" : ', " }" + tail) for key in keys)


_NAMED = '{"name": "{name}", "arguments": '
_PARAMETERS = '{"name": "{name}", "parameters": '
_BLANKS = r"\s{0,8}"
_BARE = (
    rf'(?:\A|{{opens}}){_BLANKS}(\{{{_BLANKS}"name"{_BLANKS}:{_BLANKS}"(?:{{names}})"'
    rf'{_BLANKS},{_BLANKS}"(?:arguments|parameters)"{_BLANKS}:)'
)

BARE = Form(_NAMED, "}", wakes=_BARE, free=_free("", "arguments", "parameters"))
LLAMA3 = Form(
    _PARAMETERS, "}", between="; ", wakes=_BARE, free=_free("", "parameters", "arguments"), separator=" ; "
)
HERMES = Form(
    "<tool_call>\n" + _NAMED,
    "}\n</tool_call>",
    wakes=rf"<tool_call>{_BLANKS}\{{",
    free=_free("<tool_call> ", "arguments", "parameters", tail=" </tool_call>"),
)
_TO, _JSON = " to=functions.{name}", "<|constrain|>json<|message|>"
HARMONY = Form(
    f"<|channel|>commentary{_TO} {_JSON}",
    between=None,
    wakes=r"(?:<\|channel\|>commentary|<\|start\|>assistant|\A)( to=functions\.)",
    free=tuple(
        (_TO + rest, "")
        for rest in (
            f" {_JSON}",
            " json<|message|>",
            "<|message|>",
            f"<|channel|>commentary {_JSON}",
            "<|channel|>commentary json<|message|>",
        )
    ),
)
GEMMA4 = Form(
    "<|tool_call>call:{name}",
    "<tool_call|>",
    between="",
    wakes=r"<\|tool_call>",
    free=(("<|tool_call>call:{name}", "<tool_call|>"),),
    quote='<|"|>',
)
FUNCTIONGEMMA = Form(
    "<start_function_call>call:{name}",
    "<end_function_call>",
    between="",
    wakes="<start_function_call>",
    free=(("<start_function_call>call:{name}", "<end_function_call>"),),
    quote="<escape>",
)
_DEEPSEEK_END = "<｜tool▁call▁end｜>"
DEEPSEEK = Form(
    "<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",
    _DEEPSEEK_END,
    open="<｜tool▁calls▁begin｜>",
    close="<｜tool▁calls▁end｜>",
    between="",
    wakes="<｜tool▁call▁begin｜>",
    free=(
        ("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>", _DEEPSEEK_END),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name} ```json ", " ```" + _DEEPSEEK_END),
    ),
    end="<｜tool▁calls▁end｜>",
)
_KIMI = "<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>", "<|tool_call_end|>"
KIMI = Form(
    *_KIMI,
    open="<|tool_calls_section_begin|>",
    close="<|tool_calls_section_end|>",
    between="",
    wakes=r"<\|tool_call_begin\|>",
    free=(_KIMI,),
    end="<|tool_calls_section_end|>",
)
MISTRAL_ARGS = Form(
    "[TOOL_CALLS]{name}[ARGS]",
    between="",
    wakes=r"\[TOOL_CALLS\]",
    free=(("[TOOL_CALLS] {name}[ARGS]", ""), ("[TOOL_CALLS] {name}[CALL_ID]{id}[ARGS]", "")),
)


def _listed(opening: str, escaped: str, closing: str = "") -> Form:
    """A list of calls behind a tag."""
    return Form(
        _NAMED,
        "}",
        open=opening + "[",
        close="]" + closing,
        between=", ",
        wakes=rf"{escaped}{_BLANKS}\[{_BLANKS}(\{{)",
        free=_free("", "arguments", "parameters"),
        separator=" , ",
        end=" ]" + closing,
    )


MISTRAL = _listed("[TOOL_CALLS]", r"\[TOOL_CALLS\]")
GRANITE = _listed("<|tool_call|>", r"<\|tool_call\|>")
NEMOTRON = _listed("<TOOLCALL>", "<TOOLCALL>", "</TOOLCALL>")
COMMAND_R7B = Form(
    '{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": ',
    "}",
    open="<|START_ACTION|>[",
    close="]<|END_ACTION|>",
    between=", ",
    wakes=rf"<\|START_ACTION\|>{_BLANKS}\[{_BLANKS}(\{{)",
    free=(('{ "tool_call_id" : "{number}" , "tool_name" : "{name}" , "parameters" : ', " }"),),
    separator=" , ",
    end=" ]<|END_ACTION|>",
)
COMMAND_R = Form(
    '{"tool_name": "{name}", "parameters": ',
    "}",
    open="Action: ```json\n[",
    close="]\n```",
    between=", ",
    wakes=rf"Action: ?```json{_BLANKS}\[{_BLANKS}(\{{)",
    free=(('{ "tool_name" : "{name}" , "parameters" : ', " }"),),
    separator=" , ",
    end=" ] ```",
)
FUNCTIONARY = Form(
    "<function={name}>",
    "</function>",
    between="",
    wakes="<function=",
    free=(("<function={name}> ", " </function>"),),
)


def _in_tags(tag: str) -> Form:
    """Arguments as `<parameter=key>` tags, which JSON may stand for."""
    return Form(
        f"<{tag}>\n<function={{name}}>\n",
        f"\n</function>\n</{tag}>",
        wakes="<function=",
        free=(("<function={name}>", f" </function> </{tag}>"),),
        separator=f" <{tag}> ",
        tags=True,
    )


QWEN_CODER = _in_tags("tool_call")
SEED_OSS = _in_tags("seed:tool_call")
_SOLAR = "<|tool_call:begin|>{id}<|tool_call:name|>{name}<|tool_call:args|>", "<|tool_call:end|>"
SOLAR = Form(*_SOLAR, between="", wakes=r"<\|tool_call:begin\|>", free=(_SOLAR,))
FIREFUNCTION = _listed("functools", "functools")
