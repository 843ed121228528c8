"""Whether a variable holds a secret in clear: by what its name is called, and by what its value looks like.

The rules are data. A name is a secret's when one of its words is (`API_KEY`, `DB_PASSWORD_2`, `apikey`),
unless another word says that it only tells something about one (`MAX_TOKENS`, `TOKEN_TTL`, `PUBLIC_KEY`). A
value is a secret whatever its variable is called when it has the form of one: a password within an address, a
bearer header, a private key, a key with the prefix of a known service.
"""

from __future__ import annotations

import re

# A word of a name that makes it a secret's, in the singular.
SECRET_WORDS = frozenset(
    (
        "accesskey",
        "accesstoken",
        "apikey",
        "apisecret",
        "apitoken",
        "authtoken",
        "bearer",
        "credential",
        "jwt",
        "key",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "pat",
        "privatekey",
        "pwd",
        "secret",
        "secretkey",
        "token",
    )
)

# A word before it that says: not the secret itself, but something about it.
ABOUT_BEFORE = frozenset(("count", "foreign", "max", "min", "num", "number", "partition", "public", "sort"))

# The same after it.
ABOUT_AFTER = frozenset(
    (
        "age",
        "algo",
        "algorithm",
        "audience",
        "bindings",
        "budget",
        "checking",
        "column",
        "cost",
        "count",
        "dir",
        "enabled",
        "endpoint",
        "expiration",
        "expire",
        "expires",
        "expiry",
        "folder",
        "format",
        "hash",
        "hasher",
        "header",
        "host",
        "id",
        "ids",
        "in",
        "interval",
        "issuer",
        "len",
        "length",
        "limit",
        "limits",
        "map",
        "max",
        "min",
        "minute",
        "mode",
        "name",
        "num",
        "number",
        "path",
        "pattern",
        "per",
        "policy",
        "prefix",
        "provider",
        "rate",
        "regex",
        "required",
        "rotation",
        "scope",
        "scopes",
        "second",
        "size",
        "store",
        "suffix",
        "through",
        "timeout",
        "ttl",
        "type",
        "uri",
        "url",
        "usage",
        "validation",
        "window",
    )
)

# Names whose last word says that the value is where the secret lies; then it must be a path.
_PLACE = re.compile(r"[_-]*(file|path)$", re.IGNORECASE)
# Variables that only sound like it.
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SWITCH = re.compile(r"(?i)(true|false|yes|no|on|off|none|null|auto|default|0|1|)")
_NUMBER = re.compile(r"\d+(\.\d+)?[a-zA-Z]{0,3}")
_PATH = re.compile(r"(~|\.{0,2})(/[A-Za-z0-9._@%+-]+)+/?")
# As people name files; a key in base64 that begins with a stroke is not all in lower case.
_PLAIN_PATH = re.compile(r"(/[a-z0-9._-]+){2,}|/run/secrets/\S+")
_LOOKED_UP = re.compile(r"\$+[({].*")  # by the shell that runs it

# Values that are secrets under any name.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a password within an address", re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@?#]*:[^\s/@?#]+@[^\s/]")),
    ("a password within an address", re.compile(r"\b[\w.-]+:[^\s/@:]+@(tcp|unix)\(")),
    ("a bearer token", re.compile(r"(?i)\bbearer\s+(?!\$)[\w.~+/=-]{8,}")),
    ("a basic login", re.compile(r"(?i)\bauthorization:\s*basic\s+[\w+/=-]{4,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAGE-SECRET-KEY-1")),
    ("a JSON web token", re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.")),
    (
        "a key of a known service",
        re.compile(
            r"\b(sk-(ant-|proj-|or-)?[\w-]{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}"
            r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}|AIza[\w-]{30,})"
        ),
    ),
)  # fmt: skip
# `name=value` and `"name": "value"` within a value, as in connection strings and JSON.
_WITHIN = re.compile(
    r"""(?:["']([A-Za-z][\w-]*)["']\s*:\s*["']?|\b([A-Za-z][\w-]*)\s*=\s*["']?)([^\s"',;&}{]+)"""
)


def why_secret(name: str, value: str) -> str | None:
    """What gives a secret in clear away, in words; None when there is none. The value itself is never
    told."""
    if form := form_of_secret(value):
        return f"holds {form}"
    if not value or not names_a_secret(name) or _harmless(name, value):
        return None
    if _PLACE.search(name):
        return "should hold the path of a file, and holds something else"
    return "looks like a secret in clear"


def form_of_secret(value: str) -> str | None:
    for form, pattern in _FORMS:
        if pattern.search(value):
            return form
    for quoted, bare, inner in _WITHIN.findall(value):
        name = quoted or bare
        if names_a_secret(name) and not _harmless(name, inner):
            return f"a secret in clear ({name})"
    return None


def names_a_secret(name: str) -> bool:
    if name in _NO_SECRETS:
        return False
    words = [word.lower() for word in _WORD.findall(_PLACE.sub("", name))]
    places = [i for i, word in enumerate(words) if {word, word.removesuffix("s")} & SECRET_WORDS]
    if not places:
        return False
    return not ABOUT_BEFORE & {*words[: places[0]]} and not ABOUT_AFTER & {*words[places[-1] + 1 :]}


def _harmless(name: str, value: str) -> bool:
    """Switches, paths, and counts: `TOKENS=4096` is a number of tokens, `PASSWORD=4096` is a password."""
    if any(form.fullmatch(value) for form in (_SWITCH, _PLAIN_PATH, _LOOKED_UP)):
        return True
    if _PLACE.search(name):
        return _PATH.fullmatch(value) is not None
    plural = [word.lower() for word in _WORD.findall(name)][-1:]
    return plural in (["tokens"], ["keys"]) and _NUMBER.fullmatch(value) is not None
