from datetime import UTC, datetime, timedelta

from stackctl.backup.retention import kept
from stackctl.config.backup import Keep

NEWEST = datetime(2026, 11, 21, 2, tzinfo=UTC)


def test_newest_few_and_one_of_each_period() -> None:
    nightly = [NEWEST - timedelta(days=days) for days in range(400)]
    chosen = sorted(kept(nightly, Keep(last=2, daily=3, weekly=2, monthly=3)), reverse=True)
    assert chosen == [
        NEWEST,
        NEWEST - timedelta(days=1),
        NEWEST - timedelta(days=2),
        datetime(2026, 11, 15, 2, tzinfo=UTC),
        datetime(2026, 10, 31, 2, tzinfo=UTC),
        datetime(2026, 9, 30, 2, tzinfo=UTC),
    ]


def test_nothing_to_keep_and_fewer_than_wanted() -> None:
    assert kept([], Keep()) == set()
    assert kept([NEWEST], Keep()) == {NEWEST}
