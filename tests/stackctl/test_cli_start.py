"""`stackctl --version` and `--help` stay quick: they import none of the heavy libraries."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["docker", "paramiko", "fastapi", "pydantic", "rich", "jinja2", "yaml"]


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_start_imports_nothing_heavy(flag: str) -> None:
    code = (
        "import sys\nfrom stackctl.cli.main import main\n"
        f"try:\n    main([{flag!r}])\nexcept SystemExit as exit_:\n    assert not exit_.code, exit_.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("LOADED []"), out


def test_unknown_command_suggests_a_neighbour() -> None:
    code = "from stackctl.cli.main import main; main(['statsu'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such command 'statsu'" in done.stderr


TERMINATED = """
import os, signal, sys, threading, time
from stackctl.cli import audit
from stackctl.cli.main import main
from stackctl.runtime.command import run

def work(**_):
    run(["sh", "-c", f"echo $$ > {sys.argv[1]}; exec sleep 60"], timeout=60)

def end():
    while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

audit.history.callback = work
threading.Thread(target=end, daemon=True).start()
main(["history"])
"""


def test_sigterm_ends_the_outside_command_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, str(pid)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (143, "terminated\n")
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_a_wrong_option_has_the_form_of_every_error() -> None:
    code = "from stackctl.cli.main import main; main(['up', '--jsn'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: no such option '--jsn' (did you mean '--json'?)\nfix: stackctl up --help\n"
