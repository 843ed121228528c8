"""Generations appear whole, are numbered, linked and pruned without losing what a rollback needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.render import Rendered
from stackctl.runtime.generations import Generation, GenerationStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GenerationStore:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return GenerationStore("t")


def write(store: GenerationStore, text: str = "x") -> Generation:
    return store.write({"compose.yaml": text}, runtime="docker", lock={"a": "b"}, meta={"digest": text})


def test_written_then_activated_then_previous(store: GenerationStore) -> None:
    assert store.current() is None
    first, second = write(store), write(store, "y")
    assert (first.number, second.number) == (1, 2)
    assert store.current() is None
    store.activate(first)
    store.activate(second)
    store.activate(second)
    assert (store.current(), store.previous()) == (second, first)
    assert second.file.read_text() == "y"
    assert second.lock == {"a": "b"} and second.meta["number"] == 2


def test_what_a_killed_writer_left_is_cleared_and_never_seen(store: GenerationStore) -> None:
    write(store)
    (store.root / ".new-abc").mkdir()
    (store.root / ".new-abc" / "compose.yaml").write_text("half")
    assert [generation.number for generation in store.all()] == [1]
    assert write(store).number == 2
    assert not (store.root / ".new-abc").exists()


def test_prune_spares_current_and_previous(store: GenerationStore) -> None:
    made = [write(store, str(number)) for number in range(6)]
    store.activate(made[0])
    store.activate(made[1])
    removed = store.prune(keep=2)
    assert [one.number for one in removed] == [3, 4]
    assert [one.number for one in store.all()] == [1, 2, 5, 6]


def test_a_removal_that_was_cut_off_is_never_seen_and_is_finished_later(store: GenerationStore) -> None:
    for _ in range(3):
        write(store)
    (store.root / "0001").rename(store.root / ".old-0001")
    (store.root / "0003" / "meta.json").unlink()  # what an older version of prune could leave
    assert [generation.number for generation in store.all()] == [2]
    assert write(store).number == 4, "no number is given twice"
    store.prune(5)
    assert not (store.root / ".old-0001").exists()


def rendered(pin: str, text: str = "x") -> Rendered:
    files = {"compose.yaml": f"{text} {pin}"}
    return Rendered("t", "docker", {"services": {}}, files, {"engine": "image:1"}, {"image:1": pin})


def test_down_and_up_leave_the_way_back(store: GenerationStore) -> None:
    old, new = rendered("old").write(store), rendered("new").write(store)
    store.activate(old)
    store.activate(new)
    for _ in range(6):
        store.forget()
        assert (store.current(), store.taken_down(), store.previous()) == (None, new, old)
        store.prune(2)
        store.activate(rendered("new").write(store))
        assert (store.current(), store.taken_down(), store.previous()) == (new, None, old)
    assert store.all() == [old, new], "what says the same is no new generation"
    store.forget()
    other = rendered("newer").write(store)
    store.activate(other)
    assert (store.current(), store.previous()) == (other, new)


def test_one_that_is_older_than_what_was_in_force_is_written_anew(store: GenerationStore) -> None:
    store.activate(rendered("old").write(store))
    store.activate(rendered("new").write(store))
    assert rendered("old").write(store).number == 3
    assert rendered("old").write(store).number == 3, "and waits for the next try"
    store.forget()
    assert rendered("old").write(store).number == 3 and rendered("new").write(store).number == 2


def test_changes_of_the_stack_file_do_not_take_the_version_before_away(store: GenerationStore) -> None:
    for pin in ("oldest", "older", "old", "new"):
        store.activate(rendered(pin).write(store))
    for text in "abcdef":
        store.activate(rendered("new", text).write(store))
    assert [one.number for one in store.prune(keep=3)] == [1, 4, 5, 6, 7]
    assert [one.lock["image:1"] for one in store.all()] == ["older", "old", "new", "new", "new"]


def test_a_link_that_an_older_stackctl_left_is_no_way_back(store: GenerationStore) -> None:
    store.activate(write(store))
    (store.root / "previous").symlink_to("0001")
    assert store.previous() is None
    (store.root / "current").unlink()
    store.activate(write(store))
    assert store.previous() is not None


def test_a_link_to_nowhere_is_nothing_in_force(store: GenerationStore) -> None:
    store.activate(write(store))
    (store.root / "current").unlink()
    (store.root / "current").symlink_to("0099")
    assert store.current() is None


@pytest.mark.parametrize(
    ("name", "damage"),
    [("meta.json", "{"), ("meta.json", ""), ("meta.json", "[]"), ("meta.json", "{}"), ("lock.json", "[")],
)
def test_a_damaged_generation_is_none_and_its_number_is_not_given_again(
    store: GenerationStore, name: str, damage: str
) -> None:
    first, second = write(store), write(store, "y")
    store.activate(first)
    store.activate(second)
    (second.path / name).write_text(damage)
    assert store.current() is None and store.previous() == first
    assert [one.number for one in store.all()] == [1] and write(store).number == 3
