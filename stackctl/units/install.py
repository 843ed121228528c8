"""Writes the units where systemd looks, has systemd check them first, and switches them on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from stackctl.errors import StackctlError
from stackctl.runtime.command import run
from stackctl.units import environment, templates
from stackctl.units.templates import Installation

SYSTEM = Path("/etc/systemd/system")


def folder(here: Installation) -> Path:
    from stackctl import paths

    return paths.config_home().parent / "systemd" / "user" if here.user else SYSTEM


def verify(here: Installation) -> list[str]:
    """What `systemd-analyze verify` has to say; empty when it is content, or is not here."""
    with tempfile.TemporaryDirectory(prefix="stackctl-units-") as scratch:
        files = []
        for name, text in templates.units(here).items():
            path = Path(scratch) / name
            path.write_text(text)
            files.append(str(path))
        mode = ["--user"] if here.user else ["--system"]
        done = run(["systemd-analyze", *mode, "--man=no", "verify", *files], timeout=60, check=False)
    if done.returncode == 127:
        return []
    # It also grumbles about units of the system that are not ours.
    return [
        line
        for line in done.stderr.splitlines()
        if f"stackctl-{here.stack}" in line or "stackctl-tunnel" in line
    ]


def install(
    here: Installation,
    values: Mapping[str, str],
    *,
    target: Path | None = None,
    enable: bool = True,
) -> list[Path]:
    """Only files that differ are written; the folder's other files are not touched. `values` are what the
    units find in their environment."""
    problems = verify(here)
    if problems:
        raise StackctlError(f"systemd refuses the units: {problems[0]}", fix="stackctl install-units --print")
    place = target or folder(here)
    place.mkdir(parents=True, exist_ok=True)
    environment.write(here.environment, values)
    written = []
    for name, text in templates.units(here).items():
        path = place / name
        if not path.exists() or path.read_text() != text:
            aside = place / f".{name}.new"
            aside.write_text(text)
            aside.rename(path)
        written.append(path)
    if enable and target is None:
        systemctl = ["systemctl", *(["--user"] if here.user else [])]
        run([*systemctl, "daemon-reload"], timeout=60)
        run([*systemctl, "enable", *templates.enabled(here)], timeout=60)
        run(
            [*systemctl, "start", *[name for name in templates.enabled(here) if name.endswith(".timer")]],
            timeout=60,
        )
    return written
