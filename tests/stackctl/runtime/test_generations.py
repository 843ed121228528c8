"""Generations appear whole, are numbered, linked and pruned without losing what a rollback needs."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_forget_leaves_the_generation_for_a_later_up(store: GenerationStore) -> None:
    first = write(store)
    store.activate(first)
    store.forget()
    assert store.current() is None and store.previous() == first


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
