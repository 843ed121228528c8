"""Tables as Ollama prints them: a header, left-aligned cells, four blanks behind each column."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "".join(f"{cell:<{width}}    " for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )


def section(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A heading and rows below it, as `show` prints them; nothing where there are no rows."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = ["  " + title]
    for row in rows:
        cells = "    ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append(f"    {cells}    ")
    return "\n".join([*lines, "", ""])
