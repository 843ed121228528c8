"""The commands as a person types them, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (
    "---\nid: mine\ntitle: Mine\nrequires: {{stack: false}}\nlock: none\n"
    "inputs:\n  who: {{required: true}}\n---\n"
    "# Why\nBecause <b>.\n\n```step\nid: hello\ntitle: Say hello\n"
    "run:\n  argv: [touch, '{0}/${{{{ inputs.who }}}}']\n```\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "mine.md").write_text(PAGE.format(tmp_path))
    return tmp_path


def stackctl(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "NO_COLOR": "1"}
    env.pop("STACKCTL_FILE", None)
    program = Path(sys.executable).parent / "stackctl"
    return subprocess.run(
        [program, *argv], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_your_own_procedure_is_listed_shown_planned_run_and_remembered(folder: Path) -> None:
    listed = json.loads(stackctl(folder, "procedures", "list", "--json").stdout)["procedures"]
    assert {"id": "mine", "origin": "yours"}.items() <= next(p for p in listed if p["id"] == "mine").items()
    assert {"upgrade", "backup", "bring-up"} <= {p["id"] for p in listed}
    assert "Say hello [hello]" in stackctl(folder, "procedures", "show", "mine").stdout
    plan = stackctl(folder, "run", "mine", "-i", "who=you", "--plan")
    assert plan.returncode == 0 and "would run" in plan.stdout and not (folder / "you").exists()
    done = stackctl(folder, "run", "mine", "-i", "who=you", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["result"] == "done" and (folder / "you").exists()
    assert "mine" in stackctl(folder, "procedures", "history").stdout
    assert "step.done" in stackctl(folder, "procedures", "journal").stdout


def test_mistakes_are_told_with_a_way_out(folder: Path) -> None:
    missing = stackctl(folder, "run", "mine")
    assert missing.returncode == 2 and "who: is required" in missing.stderr and "fix:" in missing.stderr
    unknown = stackctl(folder, "run", "upgrad")
    assert unknown.returncode == 2 and "did you mean 'upgrade'" in unknown.stderr
    assert stackctl(folder, "run", "upgrade").returncode == 3, "there is no stack file here"
    assert stackctl(folder, "run", "mine", "--resume", "-i", "who=x").returncode == 3


def test_lint_fails_on_an_error_and_names_the_line(folder: Path) -> None:
    page = folder / "procedures" / "mine.md"
    page.write_text(page.read_text().replace("argv: [touch", "file.exist: [touch"))
    done = stackctl(folder, "procedures", "lint", "mine")
    assert done.returncode == 2 and "mine.md:" in done.stdout


def test_pages_are_built_and_escaped(folder: Path) -> None:
    done = stackctl(folder, "procedures", "docs", "--html", "-o", "out")
    assert done.returncode == 0, done.stderr
    page = (folder / "out" / "mine.html").read_text()
    assert "Because &lt;b&gt;." in page and 'id="hello"' in page
    assert (folder / "out" / "upgrade.html").exists()
