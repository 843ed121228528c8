"""The rules that grammars of JSON share, and how texts, choices and repetitions are written in GBNF."""

from __future__ import annotations

# llama.cpp refuses larger repetition counts.
MOST_REPEATS = 1000

BASE = {
    "ws": '| " " | "\\n" [ \\t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | [\\] (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": '"\\"" char* "\\""',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": '"-"? ([0] | [1-9] [0-9]{0,15})',
    "number": '"-"? ([0] | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)*)? ws "}"',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
}
NEEDS = {
    "string": ("char",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
    "object": ("ws", "string", "value"),
    "array": ("ws", "value"),
}
FORMATS = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [1-2] [0-9] | "3" [0-1])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})?'
    ' ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12}',
    "ipv4": 'octet ("." octet){3}',
    "email": '[a-zA-Z0-9._%+-]{1,64} "@" [a-zA-Z0-9-]{1,63} ("." [a-zA-Z0-9-]{1,63}){1,8}',
}
FORMAT_NEEDS = {"ipv4": {"octet": '"25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]'}}


def literal(text: str) -> str:
    """`text` as a GBNF string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{escaped}"'


def repeat(item: str, least: int, most: int | None) -> str:
    if most is not None and most < least:
        raise ValueError(f"at least {least} and at most {most} contradict each other")
    if least > MOST_REPEATS:
        raise ValueError(f"a minimum of {least} is over the limit of {MOST_REPEATS}")
    if most is None or most > MOST_REPEATS:
        return f"{item}{{{least},}}" if least else f"{item}*"
    return f"{item}{{{least},{most}}}"


def either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"
