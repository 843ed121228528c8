"""The logs of local services: the last lines are read from the end, whatever lies before them."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from stackctl.runtime.local import tail as tails

STAMP = "2026-01-31T12:00:00.000+00:00"


def texts(folder: Path, tail: int | None) -> list[str]:
    return [line.text for line in tails.read(folder, ["a"], tail=tail, since=None, follow=False)]


@pytest.mark.parametrize("end", ["\n", ""])
def test_the_last_lines_across_rotated_files(tmp_path: Path, end: str) -> None:
    for name, numbers in {"a.log.2": (0, 1), "a.log.1": (2, 3, 4), "a.log": (5, 6)}.items():
        (tmp_path / name).write_text("\n".join(f"{STAMP} line {n}" for n in numbers) + end)
    every = [f"line {n}" for n in range(7)]
    for tail in (*range(9), None):
        assert texts(tmp_path, tail) == (every[-tail:] if tail else [] if tail == 0 else every)


def test_lines_that_are_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    long = [f"{letter}" * ((1 << 16) + 3) for letter in "abc"]
    (tmp_path / "a.log").write_text("".join(f"{STAMP} {text}\n" for text in long))
    for tail in (1, 2, 3, 4):
        assert texts(tmp_path, tail) == long[-tail:]
    (tmp_path / "a.log").write_text("")
    assert texts(tmp_path, 1) == []


def test_a_great_log_does_not_go_into_memory(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(f"{STAMP} {'x' * 100}\n" * 100_000 + f"{STAMP} last\n")
    tracemalloc.start()
    try:
        assert texts(tmp_path, 1) == ["last"]
        whole = tails.read(tmp_path, ["a"], tail=None, since="2000-01-01", follow=False)
        assert len(list(islice(whole, 1000))) == 1000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_what_is_written_while_it_is_read_comes_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(f"{STAMP} one\n{STAMP} two\n")
    lines = tails.read(tmp_path, ["a"], tail=None, since=None, follow=True)
    found = [next(lines).text]
    with log.open("a") as file:
        file.write(f"{STAMP} three\n")
    found += [line.text for line in islice(lines, 2)]
    with log.open("a") as file:
        file.write(f"{STAMP} four\n")
    assert [*found, next(lines).text] == ["one", "two", "three", "four"]
