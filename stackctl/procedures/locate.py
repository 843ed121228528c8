"""Where procedures are: the product's own, and the user's in `./procedures` of the stack's folder.

A user's page with the id of a shipped one takes its place, and `list` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stackctl import shipped
from stackctl.errors import UsageError
from stackctl.procedures import document
from stackctl.procedures.document import Procedure, ProcedureInvalid
from stackctl.procedures.suggest import did_you_mean


@dataclass(frozen=True)
class Found:
    id: str
    path: Path
    origin: str
    procedure: Procedure | None
    problem: ProcedureInvalid | None = None


def shipped_folder() -> Path:
    return shipped.folder("procedures")


def _pages(folder: Path, origin: str) -> Iterator[Found]:
    for path in sorted(folder.glob("*.md")):
        # A folder of procedures may have a page that explains them.
        if path.name.lower() == "readme.md":
            continue
        try:
            procedure = document.load(path)
        except ProcedureInvalid as problem:
            yield Found(path.stem, path, origin, None, problem)
        else:
            yield Found(procedure.id, path, origin, procedure)


def find_all(folder: Path | None = None) -> dict[str, Found]:
    shipped = shipped_folder()
    found = {page.id: page for page in _pages(shipped, "shipped")}
    own = folder / "procedures" if folder else None
    if own is not None and own.is_dir() and own.resolve() != shipped:
        found.update({page.id: page for page in _pages(own, "yours")})
    return dict(sorted(found.items()))


def page(name: str, folder: Path | None = None) -> Found:
    """By id, or by the path of a page; one that is not valid is found too."""
    if name.endswith(".md") or "/" in name:
        path = Path(name)
        try:
            procedure = document.load(path)
        except ProcedureInvalid as problem:
            return Found(path.stem, path, "file", None, problem)
        return Found(procedure.id, path, "file", procedure)
    known = find_all(folder)
    if name not in known:
        raise UsageError(
            f"there is no procedure {name!r}{did_you_mean(name, known)}", fix="stackctl procedures list"
        )
    return known[name]


def find(name: str, folder: Path | None = None) -> Procedure:
    """As `page`, and valid."""
    found = page(name, folder)
    if found.procedure is None:
        assert found.problem is not None
        raise found.problem
    return found.procedure
