"""`stackctl --version` and `--help` stay quick: they import none of the heavy libraries."""

import subprocess
import sys

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
    assert "No such command 'statsu'" in done.stderr
