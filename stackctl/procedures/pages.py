"""A procedure as a page for people: on the terminal, as Markdown, or as HTML.

Made from the very file that runs, so that it cannot say something else.
"""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Iterable
from pathlib import Path

from stackctl.config.durations import format_duration
from stackctl.procedures.document import Procedure, Prose, Step
from stackctl.procedures.inputs import REDACTED
from stackctl.procedures.locate import Found
from stackctl.procedures.operations import describe

PHASES = (("check", "skip when"), ("run", "do"), ("verify", "done when"), ("undo", "to undo"))


def _rows(step: Step) -> list[tuple[str, str]]:
    spec = step.spec
    rows = [(label, describe(operation)) for phase, label in PHASES for operation in getattr(spec, phase)]
    if spec.manual is not None:
        rows.insert(0, ("a person", spec.manual.ask))
    if spec.when:
        rows.insert(0, ("only when", spec.when))
    if spec.confirm:
        rows.insert(0, ("asks first", spec.confirm))
    limit = format_duration(spec.timeout)
    rows.append(("time limit", f"{limit}, {spec.retries + 1} attempts" if spec.retries else limit))
    if spec.irreversible:
        reason = f": {spec.irreversible}" if isinstance(spec.irreversible, str) else ""
        rows.append(("note", f"cannot be taken back{reason}"))
    return rows


def _inputs(procedure: Procedure) -> list[tuple[str, str]]:
    rows = []
    for name, spec in procedure.front.inputs.items():
        default = REDACTED if spec.secret else spec.default
        about = "optional" if spec.default is None else f"default {default}"
        if spec.required:
            about = "required"
        rows.append((name, f"{spec.type}, {about}" + (f": {spec.help}" if spec.help else "")))
    return rows


def terminal(procedure: Procedure) -> str:
    front = procedure.front
    lines = [f"{front.title} ({front.id}, version {front.version})", ""]
    for name, about in _inputs(procedure):
        lines.append(f"  input {name}: {about}")
    number = 0
    for part in procedure.parts:
        if isinstance(part, Prose):
            lines += ["", part.text]
            continue
        number += 1
        lines += ["", f"  {number}. {part.spec.title} [{part.spec.id}]"]
        lines += [f"       {label:<10} {text}" for label, text in _rows(part)]
    return "\n".join(lines)


def markdown(procedure: Procedure) -> str:
    front = procedure.front
    lines = [f"# {front.title}", "", f"`stackctl run {front.id}` · version {front.version}", ""]
    if front.inputs:
        lines += ["| input | |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(about)} |" for name, about in _inputs(procedure)]
        lines.append("")
    number = 0
    for part in procedure.parts:
        if isinstance(part, Prose):
            # The page has its title already; the prose's own headings move one down.
            lines += [re.sub(r"^(#{1,5}) ", r"#\1 ", part.text, flags=re.MULTILINE), ""]
            continue
        number += 1
        lines += [
            f'<a id="{part.spec.id}"></a>',
            f"**Step {number}: {part.spec.title}**",
            "",
            "| | |",
            "|---|---|",
        ]
        lines += [f"| {label} | `{_cell(text)}` |" for label, text in _rows(part)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("`", "'")


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "section{border:1px solid #8884;border-radius:.5rem;padding:.5rem 1rem;margin:1rem 0}"
    "th{text-align:left;padding-right:1rem;font-weight:500;white-space:nowrap;vertical-align:top}"
    "code,pre{font:14px ui-monospace,monospace}pre{overflow:auto}:root{color-scheme:light dark}"
)


def html(procedure: Procedure) -> str:
    front = procedure.front
    body = [
        f"<h1>{_e(front.title)}</h1><p><code>stackctl run {_e(front.id)}</code> · version {front.version}</p>"
    ]
    if front.inputs:
        rows = "".join(
            f"<tr><th><code>{_e(n)}</code></th><td>{_e(a)}</td></tr>" for n, a in _inputs(procedure)
        )
        body.append(f"<h2>Inputs</h2><table>{rows}</table>")
    number = 0
    for part in procedure.parts:
        if isinstance(part, Prose):
            body.append(prose_html(part.text))
            continue
        number += 1
        rows = "".join(
            f"<tr><th>{_e(label)}</th><td><code>{_e(text)}</code></td></tr>" for label, text in _rows(part)
        )
        body.append(
            f'<section id="{_e(part.spec.id)}"><h3>{number}. {_e(part.spec.title)}</h3>'
            f"<table>{rows}</table></section>"
        )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(front.title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _e(text: str) -> str:
    return escaping.escape(text)


def prose_html(text: str) -> str:
    """The Markdown that runbooks use: headings, paragraphs, lists, code, emphasis, links."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").splitlines()
        if not lines:
            continue
        if match := re.match(r"(#{1,5}) (.+)", lines[0]):
            level = min(len(match[1]) + 1, 6)
            anchor = re.sub(r"[^\w\- ]", "", match[2].lower()).strip().replace(" ", "-")
            out.append(f'<h{level} id="{_e(anchor)}">{_inline(match[2])}</h{level}>')
            lines = lines[1:]
        if not lines:
            continue
        if lines[0].startswith(("```", "~~~")):
            closed = lines[-1].startswith(lines[0][:3]) and len(lines) > 1
            out.append(f"<pre>{_e(chr(10).join(lines[1 : -1 if closed else None]))}</pre>")
        elif re.match(r"\s*([-*]|\d+\.) ", lines[0]):
            items = re.split(r"\n\s*(?:[-*]|\d+\.) ", "\n" + "\n".join(lines))[1:]
            out.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        else:
            out.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "".join(out)


def _inline(text: str) -> str:
    shown = _e(text)
    codes: list[str] = []

    def keep(match: re.Match[str]) -> str:
        codes.append(match[1])
        return f"\0{len(codes) - 1}\0"

    shown = re.sub(r"`([^`]+)`", keep, shown)
    shown = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
    shown = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", _link, shown)
    return re.sub(r"\0(\d+)\0", lambda match: f"<code>{codes[int(match[1])]}</code>", shown)


def _link(match: re.Match[str]) -> str:
    target = re.sub(r"\.md(#|$)", r".html\1", match[2])
    safe = target if re.match(r"(https?:|#|[\w./-]+(#|$))", target) else "#"
    return f'<a href="{safe}">{match[1]}</a>'


def build(pages: Iterable[Found], folder: Path, *, as_html: bool) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for page in pages:
        if page.procedure is None:
            continue
        path = folder / f"{page.id}.{'html' if as_html else 'md'}"
        path.write_text(html(page.procedure) if as_html else markdown(page.procedure), encoding="utf-8")
        written.append(path)
    return written
