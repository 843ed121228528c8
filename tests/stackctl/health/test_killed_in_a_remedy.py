"""A run that dies while a remedy is at work: people have heard of the failure all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.stackctl.health.support.servers import recording_server
from tests.support.stacks import PROGRAM, Folder, environment_for, wait_for

PAGE = """---
id: long-remedy
title: Takes its time
timeout: 2m
---

A remedy that is at work when the run is killed.

```step
id: wait
title: Wait
run: [sh, -c, 'echo $$ > {pid}; exec sleep 100']
timeout: 2m
```
"""


def test_the_failure_is_told_before_its_remedy_is_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    stack = Folder(tmp_path, environment_for(tmp_path))
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "long-remedy.md").write_text(PAGE.replace("{pid}", str(pid)))
    with recording_server() as people:
        stack.write(
            {
                "runtime": "local",
                "data_dir": str(tmp_path / "data"),
                "health": {
                    "commands": [{"id": "bad", "argv": ["sh", "-c", "exit 2"]}],
                    "checks": {"command.bad": {"fail_after": 1, "remedy": "long-remedy"}},
                    "remedies": {"enabled": True},
                },
                "notify": {"channels": [{"type": "webhook", "url": people.url}]},
            }
        )
        command = [PROGRAM, "health", "--check", "command.bad"]
        process = subprocess.Popen(command, cwd=tmp_path, env=stack.environment, start_new_session=True)
        try:
            wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"), "the remedy is at work", 30)
        finally:
            process.kill()
            process.wait()
        os.kill(int(pid.read_text()), signal.SIGKILL)
        assert [json.loads(seen.body)["kind"] for seen in people.seen] == ["problem"]
        memory = json.loads((stack.state / "health" / "health.json").read_text())
        assert (memory["checks"]["command.bad"]["told"], memory["outbox"]) == (2, [])
