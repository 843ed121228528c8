"""What is looked at on the host itself: disks, ports, certificates, the clock, the user's own commands."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from stackctl.health.checks import commands, disk, ports
from stackctl.health.model import Status
from stackctl.health.moment import Moment
from stackctl.runtime.base import PublishedPort, ServiceStatus
from tests.stackctl.health.support.plans import plan
from tests.stackctl.health.support.scenes import HostView, look

NOW = Moment.now()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A real ext4 file system of 16 MiB with 32 inodes, on a loop device; needs root."""
    image, mount = folder / "disk.img", folder / "mnt"
    mount.mkdir()
    with image.open("wb") as handle:
        handle.truncate(16 << 20)
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-N", "32", "-m", "0", str(image)], check=False, capture_output=True
    )
    mounted = made.returncode == 0 and subprocess.run(
        ["mount", "-o", "loop", str(image), str(mount)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("this machine may not mount a loop device")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_and_is_emptied(tmp_path: Path) -> None:
    with small_disk(tmp_path) as mount:
        found = plan(data_dir=str(mount))
        assert look(found, "disk").status is Status.OK
        big = mount / "big"
        free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        with contextlib.suppress(OSError):
            big.write_bytes(b"x" * int(free * 0.93))
        full = look(found, "disk")
        assert full.status is Status.WARNING, full.summary
        with contextlib.suppress(OSError):
            (mount / "more").write_bytes(b"x" * int(free * 0.05))
        full = look(found, "disk")
        assert full.status is Status.CRITICAL
        assert "free" in full.summary
        big.unlink()
        assert look(found, "disk").status is Status.OK


def test_a_disk_without_inodes_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path) as mount:
        for n in range(100):
            try:
                (mount / str(n)).touch()
            except OSError:
                break
        result = look(plan(data_dir=str(mount)), "disk")
        assert result.status is Status.CRITICAL
        assert "inodes free" in result.summary


def test_a_data_folder_or_mount_that_is_gone_is_critical(tmp_path: Path) -> None:
    gone = look(plan(data_dir=str(tmp_path / "no")), "disk")
    assert (gone.status, "does not exist" in gone.summary) == (Status.CRITICAL, True)
    bare = look(plan(data_dir=str(tmp_path), data_mount=str(tmp_path)), "disk")
    assert (bare.status, "is not mounted" in bare.summary) == (Status.CRITICAL, True)


def test_growth_tells_how_many_days_are_left(tmp_path: Path) -> None:
    def samples(rate: float) -> list[object]:
        return [[NOW.plus(3600 * n).dump(), int(1e9 + rate * n)] for n in range(24)]

    day = disk.days_left(samples(1e9), 48e9)
    assert day is not None and abs(day - 2) < 0.01
    assert disk.days_left(samples(0), 48e9) is None
    assert disk.days_left(samples(-1e9), 48e9) is None
    assert disk.days_left(samples(1e9)[:3], 48e9) is None
    before = [[Moment(NOW.wall - 86400, NOW.uptime, "earlier-boot").dump(), 0]]
    result = look(plan(data_dir=str(tmp_path)), "disk", memory={"samples": before})
    assert "full in" in result.summary
    assert result.memory is not None and len(result.memory["samples"]) == 2


def test_a_port_on_all_addresses_is_found_by_the_kernel_and_by_the_runtime(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        found = plan(data_dir=str(tmp_path), services={"engine": {"port": port}})
        published = PublishedPort("127.0.0.1", port, 11434)
        view = HostView(ServiceStatus("engine", "running", ports=(published,)))
        assert look(found, "ports", view=view).status is Status.OK
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", port))
        listener.listen()
        bad = look(found, "ports", view=view)
        assert bad.status is Status.CRITICAL
        assert f"engine: 0.0.0.0:{port}" in bad.summary
    open_ = replace(published, host_ip="::")
    bad = look(found, "ports", view=HostView(ServiceStatus("webui", "running", ports=(open_,))))
    assert (bad.status, "webui: :::" in bad.summary) == (Status.CRITICAL, True)
    assert look(plan(expose="lan"), "ports").skipped


def test_the_kernels_table_is_read_right() -> None:
    with socket.socket(socket.AF_INET6) as six, socket.socket() as four:
        six.bind(("::1", 0))
        four.bind(("127.0.0.1", 0))
        six.listen()
        four.listen()
        seen = set(ports.listening())
    assert ("::1", six.getsockname()[1] if six.fileno() >= 0 else None) in seen or any(
        a == "::1" for a, _ in seen
    )
    assert any(address == "127.0.0.1" for address, _ in seen)


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [
        (90, Status.OK, "is valid for"),
        (10, Status.WARNING, "is valid for"),
        (2, Status.CRITICAL, "is valid for"),
        (-1, Status.CRITICAL, "expired on"),
    ],
)
def test_certificates_from_a_file_and_from_a_server(
    tmp_path: Path, days: float, status: Status, words: str
) -> None:
    authority = trustme.CA()
    end = datetime.now(UTC) + timedelta(days=days)
    issued = authority.issue_cert(
        "localhost", common_name="home.example", not_before=end - timedelta(days=365), not_after=end
    )
    pem = tmp_path / "cert.pem"
    issued.cert_chain_pems[0].write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve_tls_once, args=(listener, context))
        thread.start()
        connect = f"127.0.0.1:{listener.getsockname()[1]}"
        found = plan(
            health={
                "certificates": [
                    {"name": "file", "file": str(pem)},
                    {"name": "server", "connect": connect, "server_name": "localhost"},
                ]
            }
        )
        for name in ("file", "server"):
            result = look(found, f"certificate.{name}")
            assert result.status is status, result.summary
            assert f"home.example {words}" in result.summary
        thread.join()


def _serve_tls_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
        secure.recv(1)


def test_a_certificate_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        certificates = [
            {"name": "missing", "file": str(tmp_path / "no.pem")},
            {"name": "bad", "file": str(tmp_path / "bad.pem")},
            {"name": "refused", "connect": f"127.0.0.1:{free.getsockname()[1]}"},
        ]
        found = plan(health={"certificates": certificates})
        statuses = [look(found, f"certificate.{name}").status for name in ("missing", "bad", "refused")]
    assert statuses == [Status.UNKNOWN, Status.UNKNOWN, Status.CRITICAL]


def test_a_clock_that_was_set_is_told_once() -> None:
    found = plan()
    jumped = look(found, "clock", now=replace(NOW, wall=NOW.wall + 3600), last=NOW)
    assert (jumped.status, "forward by 3600 s" in jumped.summary) == (Status.WARNING, True)
    assert "since the last look" not in look(found, "clock", now=NOW.plus(300), last=NOW).summary
    assert "since the last look" not in look(found, "clock").summary


def test_a_command_of_the_nagios_contract(tmp_path: Path) -> None:
    script = tmp_path / "check"
    script.write_text(
        "#!/bin/sh\necho \"disk is so-so | '/ used'=71%;80;90 n=3c;;;0\"\necho more | tail -1\n"
        '[ -z "$COLOUR" ] || echo "$COLOUR"\nexit 1\n'
    )
    script.chmod(0o755)
    found = plan(
        health={"commands": [{"id": "mine", "argv": [str(script)], "environment": {"COLOUR": "red"}}]}
    )
    result = look(found, "command.mine")
    assert (result.status, result.summary, result.details) == (
        Status.WARNING,
        "disk is so-so",
        ("more", "red"),
    )
    used, count = result.metrics
    assert (used.name, used.value, used.unit, used.warn, used.crit) == ("/ used", 71, "%", 80, 90)
    assert (count.name, count.value, count.unit, count.warn) == ("n", 3, "c", None)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sh", "-c", "echo hm; exit 7"], "exit code 7: hm"),
        (["sh", "-c", "kill -9 $$"], "exit code -9"),
        (["/no/such/plugin"], "cannot be run"),
        (["sleep", "60"], "did not end within"),
        (["sh", "-c", "sleep 60 & sleep 60"], "did not end within"),
    ],
)
def test_a_command_that_cannot_look_is_unknown(argv: list[str], words: str) -> None:
    found = plan(health={"commands": [{"id": "mine", "argv": argv, "timeout": "300ms"}]})
    result = look(found, "command.mine")
    assert result.status is Status.UNKNOWN
    assert words in result.summary


def test_odd_plugin_output() -> None:
    assert commands.reading(2, "", "went wrong\n").summary == "went wrong"
    assert commands.reading(0, "", "").summary == "said nothing"
    odd = commands.reading(0, "ok | a=1;@5:9;~:10 b=x 'it''s'=2.5ms", "")
    assert [(m.name, m.value, m.warn) for m in odd.metrics] == [("a", 1, None), ("it's", 2.5, None)]
    twice = commands.reading(0, "ok | a=1;5;9 b=2 a=3", "")
    assert [(m.name, m.value) for m in twice.metrics] == [("a", 3), ("b", 2)]
