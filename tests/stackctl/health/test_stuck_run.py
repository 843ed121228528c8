"""A run that never ends must not keep the watch silent; one that is merely slow must."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from stackctl.health import registry
from stackctl.health.look.scene import Scene
from stackctl.health.moment import Moment
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import HostView
from tests.support.stacks import Folder, environment_for


def test_a_holder_that_is_too_old_is_told_by_cron_and_nagios(tmp_path: Path) -> None:
    stack = Folder(tmp_path, environment_for(tmp_path))
    stack.write({"runtime": "local", "data_dir": str(tmp_path / "data")})
    lock = stack.state / "health" / "health.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for age, code in ((5.0, 0), (3 * 3600.0, 3)):
            note = {"pid": os.getpid(), "moment": Moment.now().plus(-age).dump()}
            lock.write_text(json.dumps(note))
            done = stack.run("health", "--hard", "--quiet-ok")
            assert done.code == code, done.err
        assert f"error: health run pid {os.getpid()} has been at work for 3h" in done.err
        line = stack.run("health", "--nagios", "--quiet-ok")
    assert line.code == 3
    assert line.out.startswith(f"UNKNOWN: health run pid {os.getpid()} has been at work for 3h")


def test_the_bound_covers_the_time_limits_that_are_set() -> None:
    def bound(**values: object) -> float:
        found = plan(**values)
        return registry.longest_run(registry.build(Scene(found, HostView())), found)

    slow = {"commands": [{"id": "slow", "argv": ["x"], "timeout": "1h"}]}
    assert bound() < 900 < 3600 < bound(health=slow)
    remedy = {"remedies": {"enabled": True, "timeout": "2h"}}
    assert bound(health=remedy) > 7200
