"""JSON Schema to GBNF: text that the grammar accepts is JSON that the schema accepts.

Covered: types and lists of types, properties (in their order, optional ones may be left out), required,
additionalProperties, items, prefixItems, minItems, maxItems, enum, const, anyOf, oneOf, allOf, local $ref
(also recursive), string lengths, pattern, common formats, bounds of integers. What a context-free grammar
cannot hold (uniqueItems, bounds of fractions, not, if) is not enforced, as in llama.cpp's own translation. A
schema that makes no sense is refused with a `ValueError` that names the place.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llm_engine.runner.integer_range import integer_between
from llm_engine.runner.regex_gbnf import pattern_to_gbnf

# llama.cpp refuses larger repetition counts.
MOST_REPEATS = 1000
MOST_RULES = 20_000

_BASE = {
    "ws": '| " " | "\\n" [ \\t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | [\\] (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": '"\\"" char* "\\""',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": '"-"? ([0] | [1-9] [0-9]{0,15})',
    "number": '"-"? ([0] | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)*)? ws "}"',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
}
_NEEDS = {
    "string": ("char",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
    "object": ("ws", "string", "value"),
    "array": ("ws", "value"),
}
_FORMATS = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [1-2] [0-9] | "3" [0-1])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})?'
    ' ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12}',
    "ipv4": 'octet ("." octet){3}',
    "email": '[a-zA-Z0-9._%+-]{1,64} "@" [a-zA-Z0-9-]{1,63} ("." [a-zA-Z0-9-]{1,63}){1,8}',
}
_FORMAT_NEEDS = {"ipv4": {"octet": '"25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]'}}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def schema_to_gbnf(schema: Any) -> str:
    """The whole grammar; its start is `root`. `{}` or `True` at the top means any JSON object."""
    builder = _Builder(schema)
    anything = schema is True or schema == {}
    body = builder.base("object") if anything else builder.visit(schema, "#")
    builder.rules["root"] = body
    return "\n".join(f"{name} ::= {text}" for name, text in builder.rules.items()) + "\n"


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


class _Builder:
    def __init__(self, document: Any) -> None:
        self.rules: dict[str, str] = {}
        self._used: dict[str, int] = {}
        self._document = document
        self._refs: dict[str, str] = {}

    def base(self, name: str) -> str:
        if name not in self.rules:
            self.rules[name] = _BASE[name]
            for needed in _NEEDS.get(name, ()):
                self.base(needed)
        return name

    def define(self, hint: str, text: str) -> str:
        """A rule of its own, named after its place in the schema."""
        stem = re.sub(r"[^a-zA-Z0-9]+", "-", hint).strip("-") or "part"
        name, count = stem, self._used.get(stem, 1)
        while name in self.rules or name in _BASE or name == "root":
            count += 1
            name = f"{stem}-{count}"
        self._used[stem] = count
        if len(self.rules) >= MOST_RULES:
            raise ValueError(f"the schema needs more than {MOST_RULES} rules")
        self.rules[name] = text
        return name

    def visit(self, schema: Any, at: str) -> str:
        """A GBNF expression for `schema`, which stands at the path `at`."""
        if schema is True or schema == {}:
            return self.base("value")
        if not isinstance(schema, dict):
            raise ValueError(f"{at}: a schema must be an object, not {json.dumps(schema)}")
        if "$ref" in schema:
            return self._ref(schema["$ref"], at)
        if "const" in schema:
            return literal(json.dumps(schema["const"], ensure_ascii=False))
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list) or not values:
                raise ValueError(f"{at}: enum must be a list with at least one value")
            return _either([literal(json.dumps(value, ensure_ascii=False)) for value in values])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._any_of(schema, key, at)
        if "allOf" in schema:
            return self.visit(self._merge(schema, at), at)
        return self._typed(schema, at)

    def _any_of(self, schema: dict[str, Any], key: str, at: str) -> str:
        options = schema[key]
        if not isinstance(options, list) or not options:
            raise ValueError(f"{at}: {key} must be a list with at least one schema")
        outer = {k: v for k, v in schema.items() if k not in (key, "title", "description", "default")}
        outer = {k: v for k, v in outer.items() if not k.startswith("$") and k != "definitions"}
        merged = [{"allOf": [outer, option]} if outer else option for option in options]
        return _either([self.visit(option, f"{at}/{key}/{i}") for i, option in enumerate(merged)])

    def _ref(self, ref: Any, at: str) -> str:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise ValueError(f"{at}: only references inside the schema are followed, not {ref!r}")
        if ref not in self._refs:
            name = self.define(f"ref-{ref[1:]}", "")
            self._refs[ref] = name  # before the visit: the schema may refer to itself
            self.rules[name] = self.visit(self._resolve(ref, at), ref)
        return self._refs[ref]

    def _resolve(self, ref: str, at: str) -> Any:
        node = self._document
        for part in ref[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdigit() and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise ValueError(f"{at}: {ref} is not in the schema")
        return node

    def _merge(self, schema: dict[str, Any], at: str, depth: int = 0) -> dict[str, Any]:
        """allOf as one schema: properties together, required together, the rest by the last word."""
        if depth > 32:
            raise ValueError(f"{at}: allOf is nested too deeply")
        merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
        properties = dict(merged.get("properties", {}))
        required = list(merged.get("required", []))
        for part in schema["allOf"]:
            while isinstance(part, dict) and "$ref" in part:
                part = {**self._resolve(part["$ref"], at), **{k: v for k, v in part.items() if k != "$ref"}}
            if not isinstance(part, dict):
                raise ValueError(f"{at}/allOf: a schema must be an object, not {json.dumps(part)}")
            if "allOf" in part:
                part = self._merge(part, at, depth + 1)
            properties.update(part.get("properties", {}))
            required += [name for name in part.get("required", []) if name not in required]
            merged.update({k: v for k, v in part.items() if k not in ("properties", "required")})
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
        return merged

    def _typed(self, schema: dict[str, Any], at: str) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            return _either([self._typed({**schema, "type": one}, at) for one in kind])
        if kind is None:
            kind = self._implied(schema)
        if kind is None:
            return self.base("value")
        if kind not in _TYPES:
            raise ValueError(f"{at}: unknown type {json.dumps(kind)}; use one of {', '.join(_TYPES)}")
        if kind == "object":
            return self._object(schema, at)
        if kind == "array":
            return self._array(schema, at)
        if kind == "string":
            return self._string(schema, at)
        if kind == "integer" and (
            {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} & schema.keys()
        ):
            return self._integer(schema, at)
        text = self.base(kind)
        return f"({text} | {self.base('null')})" if schema.get("nullable") is True else text

    @staticmethod
    def _implied(schema: dict[str, Any]) -> str | None:
        if {"properties", "additionalProperties", "required"} & schema.keys():
            return "object"
        if {"items", "prefixItems", "minItems", "maxItems"} & schema.keys():
            return "array"
        if {"pattern", "format", "minLength", "maxLength"} & schema.keys():
            return "string"
        if {"minimum", "maximum"} & schema.keys():
            return "number"
        return None

    def _object(self, schema: dict[str, Any], at: str) -> str:
        properties: dict[str, Any] = schema.get("properties") or {}
        if not isinstance(properties, dict):
            raise ValueError(f"{at}: properties must be an object")
        required = schema.get("required") or []
        missing = [name for name in required if name not in properties]
        extra = schema.get("additionalProperties", not properties)
        everything = {**properties, **{name: extra if isinstance(extra, dict) else True for name in missing}}
        if not everything and extra is True:
            return self.base("object")
        ws = self.base("ws")
        pairs = []
        for name, child in everything.items():
            key = literal(json.dumps(name, ensure_ascii=False))
            pairs.append((f'{key} {ws} ":" {ws} {self.visit(child, f"{at}/{name}")}', name in required))
        tail = self._additional(extra, set(everything), at)
        first = self._pairs(pairs, tail, at, started=False)
        return f'"{{" {ws} {first} {ws} "}}"'

    def _pairs(self, pairs: list[tuple[str, bool]], tail: str | None, at: str, *, started: bool) -> str:
        """Properties in order, from the last to the first; two rules each: something stands before it or
        not.
        """
        ws = self.base("ws")
        bare = with_comma = '""'
        if tail is not None:
            with_comma = f'("," {ws} {tail})*'
            bare = f'({tail} ("," {ws} {tail})*)?'
        for text, needed in reversed(pairs):
            after = self.define(f"{at}-rest", with_comma) if len(pairs) > 1 else with_comma
            new_comma = f'"," {ws} {text} {after}'
            new_bare = f"{text} {after}"
            if not needed:
                new_comma = f"({new_comma} | {after})"
                new_bare = f"({new_bare} | {self.define(f'{at}-rest', bare) if len(pairs) > 1 else bare})"
            with_comma, bare = new_comma, new_bare
        return with_comma if started else bare

    def _additional(self, extra: Any, taken: set[str], at: str) -> str | None:
        if extra is False:
            return None
        ws, value = self.base("ws"), self.visit(extra, f"{at}/additionalProperties")
        key = self.base("string") if not taken else self._other_key(taken, at)
        return f'{key} {ws} ":" {ws} {value}'

    def _other_key(self, taken: set[str], at: str) -> str:
        """Any string that is not one of the names: it leaves their tree of letters somewhere, or goes on
        after one.
        """
        self.base("char")

        def below(names: set[str]) -> str:
            heads: dict[str, set[str]] = {}
            for name in names:
                if name:
                    heads.setdefault(name[0], set()).add(name[1:])
            plain = {head: rest for head, rest in heads.items() if head >= " " and head not in '"\\]^-'}
            parts = []
            for head, rest in plain.items():
                parts.append(f"{literal(head)} {below(rest)}")
            others = "".join(plain)
            parts.append(rf'[^"\\\x7F\x00-\x1F{others}] char*')
            if "" not in names:
                parts.append('""')
            return "(" + " | ".join(parts) + ")"

        names = {json.dumps(name, ensure_ascii=False)[1:-1] for name in taken}
        return self.define(f"{at}-other", f'"\\"" {below(names)} "\\""')

    def _array(self, schema: dict[str, Any], at: str) -> str:
        ws = self.base("ws")
        prefix = schema.get("prefixItems")
        items = schema.get("items")
        if isinstance(items, list):
            prefix, items = items, schema.get("additionalItems", True)
        if prefix:
            parts = [self.visit(item, f"{at}/prefixItems/{i}") for i, item in enumerate(prefix)]
            return f'"[" {ws} ' + f' "," {ws} '.join(parts) + f' {ws} "]"'
        least, most = _bound(schema, "minItems", at) or 0, _bound(schema, "maxItems", at)
        if most == 0:
            return f'"[" {ws} "]"'
        item = self.visit(True if items is None else items, f"{at}/items")
        if not re.fullmatch(r"[a-zA-Z0-9-]+", item):
            item = self.define(f"{at}-item", item)
        more = repeat(f'("," {ws} {item})', max(0, least - 1), None if most is None else most - 1)
        body = f"{item} {more}"
        return f'"[" {ws} {body} {ws} "]"' if least else f'"[" {ws} ({body})? {ws} "]"'

    def _string(self, schema: dict[str, Any], at: str) -> str:
        self.base("char")
        if "pattern" in schema:
            return self.define(f"{at}-pattern", f'"\\"" {pattern_to_gbnf(schema["pattern"], at)} "\\""')
        kind = schema.get("format")
        if kind == "date-time":
            text = f'({_FORMATS["date"]}) "T" ({_FORMATS["time"]})'
            return self.define(f"{at}-datetime", f'"\\"" {text} "\\""')
        if kind in _FORMATS:
            self.rules.update(_FORMAT_NEEDS.get(kind, {}))
            return self.define(f"{at}-{kind}", f'"\\"" {_FORMATS[kind]} "\\""')
        least, most = _bound(schema, "minLength", at) or 0, _bound(schema, "maxLength", at)
        if not least and most is None:
            return self.base("string")
        return self.define(f"{at}-string", f'"\\"" {repeat("char", least, most)} "\\""')

    def _integer(self, schema: dict[str, Any], at: str) -> str:
        low, high = schema.get("minimum"), schema.get("maximum")
        if isinstance(schema.get("exclusiveMinimum"), (int, float)):
            low = int(schema["exclusiveMinimum"] // 1) + 1
        if isinstance(schema.get("exclusiveMaximum"), (int, float)):
            high = -int(-schema["exclusiveMaximum"] // 1) - 1
        low = None if low is None else -int(-low // 1)
        high = None if high is None else int(high // 1)
        if low is not None and high is not None and low > high:
            raise ValueError(f"{at}: no integer is between {low} and {high}")
        return self.define(f"{at}-integer", integer_between(low, high))


def _either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def _bound(schema: dict[str, Any], key: str, at: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{at}: {key} must be a whole number that is not negative, not {json.dumps(value)}")
    return value
