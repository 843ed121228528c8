"""The links of a procedure's prose: to files beside it, to headings, to steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from stackctl.procedures.document import Procedure, Prose

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_CODE = re.compile(r"(`+).*?\1", re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that a forge makes of the headings."""
    made: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower())
        made.add(plain.strip().replace(" ", "-"))
    return made


def dangling(procedure: Procedure) -> Iterator[tuple[int, str]]:
    """Line and complaint of every link of the prose that leads nowhere."""
    for part in procedure.parts:
        if not isinstance(part, Prose):
            continue
        for offset, line in enumerate(part.text.splitlines()):
            for target in _LINK.findall(_CODE.sub("", line)):
                problem = _dangling(procedure, unquote(target))
                if problem:
                    yield part.line + offset, problem


def _dangling(procedure: Procedure, target: str) -> str | None:
    if re.match(r"^[a-z][a-z0-9+.-]*:", target):
        return None
    name, _, anchor = target.partition("#")
    if not name:
        known = anchors(procedure.text) | {step.spec.id for step in procedure.steps}
        return None if anchor in known else f"#{anchor}: there is no such heading or step"
    if procedure.path is None:
        return None
    path = procedure.path.parent / name
    if not path.exists():
        return f"{target}: there is no such file"
    if anchor and path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        if anchor not in anchors(text) and not re.search(
            rf"^id:\s*{re.escape(anchor)}\s*$", text, re.MULTILINE
        ):
            return f"{target}: there is no such heading in {name}"
    return None
