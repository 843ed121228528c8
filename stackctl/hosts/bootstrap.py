"""Installing stackctl on a host that has none: look, build, copy, install, examine.

The host needs Python and no network: the wheel and its locked dependencies are made here and copied. They
go into a virtual environment of their own under ~/.local/share/stackctl, with the program in ~/.local/bin;
doing it again replaces it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import stackctl
from stackctl.errors import PreflightError, StackctlError
from stackctl.hosts import remote
from stackctl.runtime.command import run
from stackctl.tunnel.hosts import Host

SOURCE = Path(stackctl.__file__).resolve().parents[1]
Say = Callable[[str], None]

_LOOK = r"""
for name in python3.13 python3.12 python3.11 python3; do
    if command -v $name >/dev/null && $name -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "python=$name"
        $name -c 'import sys; print("version=%d.%d" % sys.version_info[:2])'
        $name -c 'import venv, ensurepip' 2>/dev/null && echo venv=yes
        break
    fi
done
echo "machine=$(uname -m)"
echo "docker=$(docker version --format '{{.Server.Version}}' 2>/dev/null)"
echo "gpu=$(nvidia-smi -L 2>/dev/null | head -n 1)"
echo "linger=$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null)"
echo "uid=$(id -u)"
"""

_INSTALL = r"""
set -eu
base="$HOME/.local/share/stackctl"
rm -rf "$base/new" && mkdir -p "$base/new" "$HOME/.local/bin"
tar -xf - -C "$base/new"
{python} -m venv "$base/new/venv"
"$base/new/venv/bin/python" -m pip install -q --disable-pip-version-check --no-index \
    --find-links "$base/new/wheels" --require-hashes -r "$base/new/requirements.txt"
"$base/new/venv/bin/python" -m pip install -q --disable-pip-version-check --no-index --no-deps \
    "$base/new/wheels"/stackctl-*.whl
rm -rf "$base/new/wheels"
# A virtual environment holds its own path: move it, then mend the program's first line by making it anew.
rm -rf "$base/current.old"
[ ! -d "$base/current" ] || mv "$base/current" "$base/current.old"
mv "$base/new" "$base/current"
cat > "$HOME/.local/bin/stackctl.new" <<END
#!/bin/sh
exec "$base/current/venv/bin/python" -c "from stackctl.cli.main import main; main()" "\$@"
END
chmod 755 "$HOME/.local/bin/stackctl.new"
mv "$HOME/.local/bin/stackctl.new" "$HOME/.local/bin/stackctl"
rm -rf "$base/current.old"
"$HOME/.local/bin/stackctl" --version
"""


@dataclass(frozen=True)
class Facts:
    python: str
    version: str
    machine: str
    docker: str
    gpu: str
    linger: str
    uid: str

    def notes(self, host: str) -> list[str]:
        """What is missing for comfort; nothing here stops the installation."""
        notes = []
        if not self.docker:
            notes.append("no Docker Engine answers: the stack will run as local processes")
        if not self.gpu:
            notes.append("no NVIDIA GPU was found: the engine will compute on the CPU")
        if self.linger == "no" and self.uid != "0":
            notes.append(f"user services stop at logout; to keep them: ssh {host} loginctl enable-linger")
        return notes


def look(host: Host) -> Facts:
    answer = remote.ask(host, ["sh", "-c", _LOOK], timeout=60)
    found = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
    if "python" not in found:
        raise PreflightError(
            f"{host.name} has no Python 3.11 or newer",
            fix=f"ssh {host.destination.words} sudo apt-get install python3",
        )
    if "venv" not in found:
        raise PreflightError(
            f"{found['python']} on {host.name} cannot make virtual environments",
            fix=f"ssh {host.destination.words} sudo apt-get install python3-venv",
        )
    fields = ("python", "version", "machine", "docker", "gpu", "linger", "uid")
    return Facts(**{name: found.get(name, "") for name in fields})


def bootstrap(host: Host, say: Say) -> Facts:
    """Install; the caller runs `doctor` afterwards."""
    say(f"looking at {host.name}")
    facts = look(host)
    say(
        f"Python {facts.version}, {facts.machine}, Docker {facts.docker or 'none'}, GPU {facts.gpu or 'none'}"
    )
    lock = SOURCE / "requirements" / "stackctl.txt"
    if not lock.is_file():
        raise PreflightError(
            f"stackctl here was installed without its sources ({lock} is missing)",
            fix="run bootstrap from a checkout of the project",
        )
    with tempfile.TemporaryDirectory(prefix="stackctl-bootstrap-") as folder:
        wheels = Path(folder)
        say("building the wheel and fetching its locked dependencies")
        _make_wheels(wheels, lock, facts)
        say("copying and installing")
        _install(host, facts, _bundle(wheels, lock))
    for note in facts.notes(host.destination.words):
        say(f"note: {note}")
    return facts


def _make_wheels(wheels: Path, lock: Path, facts: Facts) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(SOURCE)], timeout=300)
    platforms = [f"manylinux_2_{minor}_{facts.machine}" for minor in (17, 28, 34)]
    platforms.append(f"manylinux2014_{facts.machine}")
    download = [*pip, "download", "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(wheels)]
    download += ["--only-binary=:all:", "--python-version", facts.version]
    for platform in platforms:
        download += ["--platform", platform]
    run(download, timeout=600)


def _bundle(wheels: Path, lock: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(wheels, "wheels")
        tar.add(lock, "requirements.txt")
    return buffer.getvalue()


def _install(host: Host, facts: Facts, bundle: bytes) -> None:
    script = _INSTALL.replace("{python}", facts.python)
    done = subprocess.run(
        remote.argv(host, ["sh", "-c", script], batch=True), input=bundle, capture_output=True, timeout=600
    )
    if done.returncode == remote.SSH_FAILED:
        raise remote.explain(host, done.stderr.decode(errors="replace"))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise StackctlError(
            f"the installation on {host.name} failed: {said[-1]}", fix=f"ssh {host.destination.words} df -h"
        )
