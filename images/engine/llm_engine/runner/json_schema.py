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

from llm_engine.runner import schema_words
from llm_engine.runner.integer_range import integer_between
from llm_engine.runner.json_rules import BASE, FORMAT_NEEDS, FORMATS, NEEDS, either, literal, repeat
from llm_engine.runner.regex_gbnf import pattern_to_gbnf
from llm_engine.runner.schema_join import Impossible, join
from llm_engine.runner.schema_words import count, place

MOST_RULES = 20_000
LARGEST = 1 << 20
"""Characters that a grammar may have."""
MOST_PLACES = 20_000
"""Schemas that may be looked at for one grammar, each as often as references bring it there."""
DEEPEST = 100
LONGEST_INLINE = 200
"""A longer expression becomes a rule: what is said twice, by what is said twice, would grow without end."""

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def schema_to_gbnf(schema: Any) -> str:
    """The whole grammar; its start is `root`. `{}` or `True` at the top means any JSON object."""
    builder = _Builder(schema)
    anything = schema is True or schema == {}
    try:
        body = builder.base("object") if anything else builder.visit(schema, "#")
    except RecursionError as error:
        raise ValueError("the schema is nested too deeply") from error
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        # A shape that nobody foresaw is the client's mistake all the same.
        raise ValueError(f"the schema cannot be read: {error}") from error
    builder.rules["root"] = body
    return "\n".join(f"{name} ::= {text}" for name, text in builder.rules.items()) + "\n"


class _Builder:
    def __init__(self, document: Any) -> None:
        self.rules: dict[str, str] = {}
        self._used: dict[str, int] = {}
        self._document = document
        self._refs: dict[str, str] = {}
        self._places = self._depth = self._length = 0

    def base(self, name: str) -> str:
        if name not in self.rules:
            self.rules[name] = BASE[name]
            for needed in NEEDS.get(name, ()):
                self.base(needed)
        return name

    def define(self, hint: str, text: str) -> str:
        """A rule of its own, named after its place in the schema."""
        stem = re.sub(r"[^a-zA-Z0-9]+", "-", hint[-60:]).strip("-") or "part"
        name, number = stem, self._used.get(stem, 1)
        while name in self.rules or name in BASE or name == "root":
            number += 1
            name = f"{stem}-{number}"
        self._used[stem] = number
        if len(self.rules) >= MOST_RULES:
            raise ValueError(f"the schema needs more than {MOST_RULES} rules")
        self._length += len(name) + len(text)
        if self._length > LARGEST:
            raise ValueError(f"the schema needs a grammar of more than {LARGEST} characters")
        self.rules[name] = text
        return name

    def visit(self, schema: Any, at: str) -> str:
        """A GBNF expression for `schema`, which stands at the path `at`; a name, unless it is a short one."""
        self._spend(1)
        if self._depth >= DEEPEST:
            raise ValueError(f"{at[:60]}…: schemas are nested too deeply: more than {DEEPEST} in each other")
        self._depth += 1
        try:
            text = self._expression(schema, at)
        finally:
            self._depth -= 1
        return text if len(text) <= LONGEST_INLINE else self.define(f"{at}-value", text)

    def _spend(self, places: int) -> None:
        self._places += places
        if self._places > MOST_PLACES:
            raise ValueError(f"the schema, with its references, has more than {MOST_PLACES} parts")

    def _expression(self, schema: Any, at: str) -> str:
        if schema is True or schema == {}:
            return self.base("value")
        if not isinstance(schema, dict):
            raise ValueError(f"{at}: a schema must be an object, not {json.dumps(schema)}")
        if "$ref" in schema:
            return self._ref(schema["$ref"], at)
        if "allOf" in schema:
            return self.visit(self._merge(schema, at), at)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._any_of(schema, key, at)
        if "const" in schema:
            return literal(json.dumps(schema["const"], ensure_ascii=False))
        if "enum" in schema:
            values = schema_words.listed(schema, "enum", at)
            return either([literal(json.dumps(value, ensure_ascii=False)) for value in values])
        return self._typed(schema, at)

    def _any_of(self, schema: dict[str, Any], key: str, at: str) -> str:
        options = schema_words.listed(schema, key, at)
        outer = {k: v for k, v in schema.items() if k not in (key, "title", "description", "default")}
        outer = {k: v for k, v in outer.items() if not k.startswith("$") and k != "definitions"}
        merged = [{"allOf": [outer, option]} if outer else option for option in options]
        found, impossible = [], None
        for number, option in enumerate(merged):
            try:
                found.append(self.visit(option, f"{at}/{key}/{number}"))
            except Impossible as error:  # one way less
                impossible = error
        if not found and impossible is not None:
            raise impossible
        return either(found)

    def _ref(self, ref: Any, at: str) -> str:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise ValueError(f"{at}: only references inside the schema are followed, not {ref!r}")
        if ref not in self._refs:
            name = self.define(f"ref-{ref[1:]}", "")
            self._refs[ref] = name  # before the visit: the schema may refer to itself
            try:
                self.rules[name] = self.visit(self._resolve(ref, at), ref)
            except Impossible:
                # Where this is one way of several the others are gone on with: no empty rule may stay.
                del self._refs[ref], self.rules[name]
                raise
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
        """allOf as one schema, which holds where all its parts do."""
        if depth > 32:
            raise ValueError(f"{at}: allOf is nested too deeply")
        merged = self._checked({k: v for k, v in schema.items() if k != "allOf"}, at)
        if not isinstance(schema["allOf"], list):
            raise schema_words.wrong(at, "allOf", "a list", schema["allOf"])
        for part in schema["allOf"]:
            part = self._followed(part, f"{at}/allOf")
            if "allOf" in part:
                part = self._merge(part, at, depth + 1)
            merged = join(merged, self._checked(part, at), at)
        return merged

    def _checked(self, part: dict[str, Any], at: str) -> dict[str, Any]:
        """Without what is written and says nothing."""
        self._spend(1 + len(schema_words.properties(part, at)))
        schema_words.required(part, at)
        return {k: v for k, v in part.items() if v is not None or k not in ("properties", "required")}

    def _followed(self, part: Any, at: str) -> dict[str, Any]:
        """A part of allOf with what its reference says; one may lead to another."""
        seen = set()
        while isinstance(part, dict) and "$ref" in part:
            ref = part["$ref"]
            if ref in seen:
                raise ValueError(f"{at}: the reference {ref} leads back to itself")
            seen.add(ref)
            self._spend(1)
            found = self._resolve(ref, at)
            if not isinstance(found, dict):
                raise schema_words.wrong(at, ref, "an object", found)
            part = {**found, **{k: v for k, v in part.items() if k != "$ref"}}
        if not isinstance(part, dict):
            raise schema_words.wrong(at, "a schema", "an object", part)
        return part

    def _typed(self, schema: dict[str, Any], at: str) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            if not kind or not all(one in _TYPES for one in kind):
                raise schema_words.wrong(at, "type", f"some of {', '.join(_TYPES)}", kind)
            return either([self._typed({**schema, "type": one}, at) for one in dict.fromkeys(kind)])
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
        properties = schema_words.properties(schema, at)
        required = set(schema_words.required(schema, at))
        missing = [name for name in schema_words.required(schema, at) if name not in properties]
        extra = schema.get("additionalProperties", not properties)
        everything = {**properties, **{name: extra if isinstance(extra, dict) else True for name in missing}}
        if not everything and extra is True:
            return self.base("object")
        ws = self.base("ws")
        pairs = []
        for name, child in everything.items():
            key = literal(json.dumps(name, ensure_ascii=False))
            pairs.append((f'{key} {ws} ":" {ws} {self.visit(child, place(at, name))}', name in required))
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
        return self.define(f"{at}-more", f'{key} {ws} ":" {ws} {value}')

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
            if not isinstance(prefix, list):
                raise schema_words.wrong(at, "prefixItems", "a list", prefix)
            parts = [self.visit(item, f"{at}/prefixItems/{i}") for i, item in enumerate(prefix)]
            return f'"[" {ws} ' + f' "," {ws} '.join(parts) + f' {ws} "]"'
        least, most = count(schema, "minItems", at) or 0, count(schema, "maxItems", at)
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
            text = f'({FORMATS["date"]}) "T" ({FORMATS["time"]})'
            return self.define(f"{at}-datetime", f'"\\"" {text} "\\""')
        if isinstance(kind, str) and kind in FORMATS:
            self.rules.update(FORMAT_NEEDS.get(kind, {}))
            return self.define(f"{at}-{kind}", f'"\\"" {FORMATS[kind]} "\\""')
        least, most = count(schema, "minLength", at) or 0, count(schema, "maxLength", at)
        if not least and most is None:
            return self.base("string")
        return self.define(f"{at}-string", f'"\\"" {repeat("char", least, most)} "\\""')

    def _integer(self, schema: dict[str, Any], at: str) -> str:
        return self.define(f"{at}-integer", integer_between(*schema_words.integer_bounds(schema, at)))
