"""What a program's arguments say of it, for lint: does it start a shell, and does it destroy something.

Known by name, through the programs that only start another one (sudo, env, docker exec, …). A program that is
not in these tables is taken at its author's word, as everywhere.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh"}
STARTERS = {
    "sudo", "doas", "env", "nice", "ionice", "nohup", "timeout", "setsid", "stdbuf", "time", "chroot",
    "unshare", "nsenter", "xargs", "find", "flock", "busybox", "docker", "podman", "nerdctl", "kubectl",
    "ssh", "systemd-run", "runuser", "su", "script", "watch", "parallel", "exec", "command", "chrt",
    "taskset", "ip", "numactl",
}  # fmt: skip
# `su -c TEXT` gives the text to a shell without naming one.
SHELL_OF_ITS_OWN = {"su", "runuser", "script"}


def shell_text(argv: Sequence[str]) -> str | None:
    """The text that a shell is given as its program; None when no shell is."""
    first = _name(argv[0])
    if first == "ssh":
        return _far(argv[1:])
    for at, word in enumerate(argv):
        named = _name(word) in SHELLS or (at == 0 and first in SHELL_OF_ITS_OWN)
        if named and (at == 0 or first in STARTERS) and (text := _after_c(argv[at + 1 :])) is not None:
            return text
    return None


def _far(words: Sequence[str]) -> str | None:
    """What the shell at the other end of an ssh is given; plain words are as plain there."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0] in _SSH_WITH_VALUE else rest[1:]
    text = " ".join(rest[1:])
    return (
        text if re.search(r"[;&|<>$`*?'\"\\\\(){}]", text) or any(" " in word for word in rest[1:]) else None
    )


_SSH_WITH_VALUE = {f"-{letter}" for letter in "BbcDEeFIiJLlmOopQRSWw"}


def _after_c(words: Sequence[str]) -> str | None:
    for at, word in enumerate(words):
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*|--command", word):
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith("--command="):
            return word.partition("=")[2]
    return None


def destroys(argv: Sequence[str]) -> str | None:
    """What cannot be had again once this has run, in the words of the command; None when nothing is known."""
    text = shell_text(argv)
    if text is not None:
        return destroys_in_shell(text)
    for words in _started(list(argv)):
        name, rest = _name(words[0]), words[1:]
        rule = _RULES.get(name) or (_always if name.startswith("mkfs") else None)
        if rule is not None and rule(rest):
            return " ".join([name, *rest[:3]])
    return None


def destroys_in_shell(command: str) -> str | None:
    for words in _commands_of(command):
        if found := destroys(words):
            return found
    return None


def _commands_of(command: str) -> Iterator[list[str]]:
    """Each simple command of a shell line, near enough: what is in `$(…)` and after `then` counts, too."""
    line = re.sub(r"^\s*#.*$", "", re.sub(r"\$\{\{.*?\}\}", "VALUE", command), flags=re.MULTILINE)
    while inner := re.search(r"\$\(([^()]*)\)|`([^`]*)`", line):
        yield from _commands_of(inner[1] or inner[2] or "")
        line = line[: inner.start()] + "VALUE" + line[inner.end() :]
    lexer = shlex.shlex(re.sub(r"[()\n]|\{ ", " ; ", line), posix=True, punctuation_chars=";&|<>")
    lexer.commenters = ""
    words: list[str] = []
    with contextlib.suppress(ValueError):  # a quote that is not closed: the shell refuses it, too
        for word in lexer:
            if word and set(word) <= set(";&|"):
                yield from _simple(words)
                words = []
            else:
                words.append(word)
    yield from _simple(words)


def _simple(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _LEADING or re.match(r"[A-Za-z_]\w*=", words[0])):
        words = words[1:]
    if words:
        yield words


_LEADING = {"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "exec"}


def _started(argv: list[str]) -> Iterator[list[str]]:
    """The command itself, and every one that a starter in front of it may start."""
    yield argv
    if _name(argv[0]) in STARTERS:
        for at in range(1, len(argv)):
            if _name(argv[at]) in _RULES or _name(argv[at]).startswith("mkfs"):
                yield argv[at:]


def _name(word: str) -> str:
    return PurePath(word).name


def _plain(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


def _always(_rest: list[str]) -> bool:
    return True


def _one_of(*phrases: str) -> Callable[[list[str]], bool]:
    """Holds when the arguments without their options contain one of these, word by word."""
    wanted = [phrase.split() for phrase in phrases]

    def holds(rest: list[str]) -> bool:
        words = _plain(rest)
        return any(
            words[at : at + len(phrase)] == phrase
            for phrase in wanted
            for at in range(len(words) - len(phrase) + 1)
        )

    return holds


def _with(*options: str) -> Callable[[list[str]], bool]:
    return lambda rest: any(word in options or word.split("=")[0] in options for word in rest)


def _either(*rules: Callable[[list[str]], bool]) -> Callable[[list[str]], bool]:
    return lambda rest: any(rule(rest) for rule in rules)


def _compose(rest: list[str]) -> bool:
    words = _plain(rest)
    goes = "down" in words and any(word in ("-v", "--volumes") or word.startswith("--rmi") for word in rest)
    return goes or ("rm" in words and any(re.fullmatch(r"-[a-z]*v[a-z]*|--volumes", word) for word in rest))


def _docker(rest: list[str]) -> bool:
    words = _plain(rest)
    if "compose" in words:
        return _compose(rest)
    return _one_of("prune", "rm", "remove", "rmi")(rest) and not _runs_inside(words)


def _runs_inside(words: list[str]) -> bool:
    """`docker exec NAME rm …`: the word belongs to the command inside, which is looked at by itself."""
    return bool(words) and (
        words[0] in ("exec", "run") or words[:2] in (["container", "exec"], ["container", "run"])
    )


_models = _one_of("models rm", "models remove", "models delete")
_RULES: dict[str, Callable[[list[str]], bool]] = {
    **dict.fromkeys(("rm", "rmdir", "unlink", "shred", "wipefs", "blkdiscard", "dropdb", "userdel"), _always),
    **dict.fromkeys(("lvremove", "vgremove", "pvremove", "truncate", "srm"), _always),
    **dict.fromkeys(("docker", "podman", "nerdctl"), _docker),
    "docker-compose": _compose,
    "dd": lambda rest: any(word.startswith("of=") for word in rest),
    "find": _with("-delete"),
    "rsync": lambda rest: any(word.startswith(("--delete", "--remove-source-files")) for word in rest),
    "git": _either(_with("-D", "--hard", "--force"), lambda rest: rest[:1] == ["clean"]),
    "crontab": _with("-r"),
    "zfs": _one_of("destroy", "rollback"),
    "zpool": _one_of("destroy", "labelclear"),
    "btrfs": _one_of("subvolume delete"),
    "restic": _one_of("forget", "prune"),
    "borg": _one_of("delete", "prune", "compact"),
    "kubectl": _one_of("delete"),
    "ollama": _one_of("rm"),
    "llm-engine": _one_of("rm"),
    "stackctl": _either(
        _models,
        _one_of("backup volume load", "secrets set"),
        _with("--volumes"),
    ),
}
