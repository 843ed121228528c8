"""The systemd user unit of a tunnel, examined by systemd itself where it is present."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.tunnel import unit

STACKCTL = str(Path(sys.executable).with_name("stackctl"))


def printed(folder: Path, *words: str) -> str:
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}
    argv = [STACKCTL, *words, "--print"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_line(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("ExecStart="))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("host", ["box", "me@10.0.0.5:2222", "[::1]:22"])
def test_systemd_accepts_it(tmp_path: Path, host: str) -> None:
    path = tmp_path / unit.unit_name(host)
    path.write_text(printed(tmp_path, "tunnel", "install", host, "webui"))
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    verify = ["systemd-analyze", "verify", "--user", "--man=no", str(path)]
    done = subprocess.run(verify, env=env, capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_it_runs_the_tunnel_in_front_for_ever(tmp_path: Path) -> None:
    text = printed(tmp_path, "tunnel", "install", "box", "webui", "engine")
    assert command_line(text).endswith("tunnel up box webui engine --foreground --persist")
    assert "RestartPreventExitStatus=2 3" in text
    assert "SSH_AUTH_SOCK" not in text, "the user manager knows where the agent is; we do not"


def test_nothing_in_it_hides_who_owns_a_file(tmp_path: Path) -> None:
    """In a user's unit each of these comes with a user namespace, where the files of root are nobody's; ssh
    then refuses its own configuration."""
    text = unit.render("box", (), None)
    keys = {line.partition("=")[0] for line in text.splitlines() if not line.startswith("#")}
    assert not {key for key in keys if key.startswith(("Private", "Protect", "ReadOnly", "Inaccessible"))}


def test_an_entry_of_the_stack_here_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("name: here\nhosts:\n  box: {ssh: me@example.org}\n")
    assert f"-f {tmp_path}/stack.yaml tunnel up box" in command_line(
        printed(tmp_path, "tunnel", "install", "box")
    )
    # Any other host does not need that file, and must not depend on it.
    assert "stack.yaml" not in printed(tmp_path, "tunnel", "install", "elsewhere")


def test_words_are_quoted_as_systemd_reads_them(tmp_path: Path) -> None:
    text = unit.render("box", (), str(tmp_path / "my stack$1 100%.yaml"))
    assert f'"{tmp_path}/my stack$$1 100%%.yaml"' in text


@pytest.mark.parametrize(
    ("tunnel", "name"),
    [("box", "box"), ("me@box", "me_box"), ("me@[::1]:22", "me_1_22"), ("gpu-1.example", "gpu-1.example")],
)
def test_names_are_plain_units(tunnel: str, name: str) -> None:
    assert unit.unit_name(tunnel) == f"stackctl-tunnel-{name}.service"
