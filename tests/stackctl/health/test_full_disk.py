"""A disk that is full to the last byte, with everything of the stack on it: health still looks and tells."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tests.stackctl.health.support.servers import recording_server
from tests.stackctl.health.test_host_checks import small_disk
from tests.support.stacks import Folder, environment_for, free_port


def fill(folder: Path) -> Path:
    big = folder / "big"
    with big.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            while handle.write(b"x" * size) == size:
                pass
    with big.open("ab", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(b"x")
    return big


def test_a_disk_without_a_byte_left_stops_no_look_and_no_message(tmp_path: Path) -> None:
    with small_disk(tmp_path) as mount, recording_server() as people:
        stack = Folder(tmp_path, environment_for(tmp_path) | {"XDG_STATE_HOME": str(mount / "state")})
        stack.write(
            {
                "runtime": "local",
                "data_dir": str(mount),
                "services": {"engine": {"port": free_port()}},
                "health": {"checks": {"disk": {"fail_after": 1}}},
                "notify": {"channels": [{"type": "webhook", "url": people.url}]},
            }
        )
        stack.run("health", "--check", "disk")
        big = fill(mount)
        done = stack.run("health", "--check", "disk", "--hard", "--quiet-ok")
        assert done.code == 2, done.err
        assert "0% free" in done.out
        assert "health.json cannot be written: No space left on device" in done.err
        assert [json.loads(seen.body)["check"] for seen in people.seen] == ["disk"]
        (tmp_path / "stack.yaml").write_text((tmp_path / "stack.yaml").read_text() + "# changed\n")
        assert stack.run("health", "--check", "disk", "--nagios").code == 2, (
            "nothing of it is kept: it is read"
        )
        big.unlink()
        assert stack.run("health", "--check", "disk").code == 0


def test_the_remedy_frees_room_and_deletes_nothing_that_a_person_must_confirm(tmp_path: Path) -> None:
    with small_disk(tmp_path) as mount:
        stack = Folder(tmp_path, environment_for(tmp_path))
        disk = {"fail_after": 1, "warn": "40%", "crit": "30%"}
        stack.write(
            {
                "runtime": "local",
                "data_dir": str(mount),
                "health": {"checks": {"disk": disk}, "remedies": {"enabled": True}},
            }
        )
        aside = mount / "webui.replaced-20260101T000000Z"
        aside.mkdir()
        (aside / "webui.db").write_bytes(b"a person's chats")
        (mount / "big").write_bytes(b"x" * (12 << 20))
        described = stack.ok("health", "--explain", "disk", "--json").json["checks"][0]
        assert described["remedy"].startswith("disk-full -i room=")
        assert stack.run("health", "--check", "disk").code == 2
        (entry,) = [
            line
            for line in map(json.loads, (stack.state / "audit.jsonl").read_text().splitlines())
            if line["action"] == "health.remedy"
        ]
        assert entry["remedy"] == described["remedy"]
        assert entry["result"].startswith("failed (3): error: step replaced asks for a confirmation")
        assert "fix: stackctl run disk-full --resume" in entry["result"]
        assert (aside / "webui.db").exists(), "only a person may say that it goes"
        assert stack.run("health", "--check", "disk").code == 2
        assert (stack.state / "audit.jsonl").read_text().count('"health.remedy"') == 1
