"""From the backup file and one command to the stack as it was: overlay, secrets, models made here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stacks import Folder, environment_for, free_port

pytestmark = pytest.mark.timeout(240)
ENGINE = str(Path(sys.executable).parent / "llm-engine")


def engine(folder: Folder, port: int, *argv: str) -> str:
    environment = {**folder.environment, "OLLAMA_HOST": f"http://127.0.0.1:{port}"}
    done = subprocess.run(
        [ENGINE, *argv], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_restore_onto_an_empty_host(folder: Folder, tmp_path: Path) -> None:
    port = free_port()
    folder.write({"runtime": "local", "services": {"engine": {"port": free_port()}}, "gpu": {"mode": "none"}})
    (folder.path / "stack.night.yaml").write_text(f"services: {{engine: {{port: {port}}}}}\n")
    (folder.path / "stack.day.yaml").write_text("expose: loopback\n")
    folder.environment["STACKCTL_OVERLAY"] = "night"
    folder.ok("up")
    modelfile = folder.path / "Modelfile"
    modelfile.write_text(
        'FROM demo\nPARAMETER temperature 0.25\nSYSTEM """\nFROM here on you are Mario.\n"""\n'
    )
    engine(folder, port, "create", "team/mario", "-f", str(modelfile))
    modelfile.write_text("FROM team/mario\nPARAMETER seed 7\n")
    engine(folder, port, "create", "luigi", "-f", str(modelfile))
    folder.ok("backup", "create")
    [backup] = (folder.state / "backups").glob("*.backup")
    here = folder.run("run", "restore", "-i", f"file={backup}", "-i", f"folder={folder.path}")
    assert here.code == 3 and "is up on this host" in here.err, here.err
    kept = tmp_path / "kept.backup"
    shutil.copy(backup, kept)
    folder.ok("down")

    place = tmp_path / "other"
    (place / "stack").mkdir(parents=True)
    other = Folder(place / "stack", environment_for(place), folder.name)
    try:
        done = other.ok("backup", "restore", str(kept), "--to", str(place / "stack"))
        assert "STACKCTL_OVERLAY=night" in done.err, done.err
        assert (place / "stack" / "stack.day.yaml").exists(), "also an overlay that was not in use"
        [back] = [line for line in done.out.splitlines() if line.startswith("models back:")]
        assert set(back.split()[2:]) == {"team/mario:latest", "luigi:latest"}, done.err
        shown = engine(other, port, "show", "luigi", "--modelfile")
        assert "temperature 0.25" in shown and "seed 7" in shown and "FROM here on you are Mario." in shown
        other.environment["STACKCTL_OVERLAY"] = "night"
        again = other.ok("backup", "models", str(kept))
        assert "models back" not in again.out, "what is there is left alone"
    finally:
        other.run("down")
