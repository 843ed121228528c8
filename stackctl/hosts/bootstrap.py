"""Installing stackctl on a host that has none: look, build, copy, install, examine.

The host needs Python and no network: the wheel and its locked dependencies are made here and copied. They
go into a virtual environment of their own under ~/.local/share/stackctl, with the program in ~/.local/bin.
Doing it again adds a release beside the others and switches to it once it is known to start; what runs is
left alone (releases.py).
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stackctl.errors import PreflightError, StackctlError
from stackctl.hosts import remote, wheel
from stackctl.tunnel.auth import terminal
from stackctl.tunnel.errors import TunnelError
from stackctl.tunnel.hosts import Host

Say = Callable[[str], None]
#: Seconds: for one question about the host, for all of them (a person may have to type a passphrase), and for
#: copying and installing.
LOOK_LIMIT, LOOK_WAIT, INSTALL_WAIT = 10, 120.0, 1800.0

_LOOK = r"""
for name in python3.13 python3.12 python3.11 python3; do
    if command -v $name >/dev/null && $name -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "python=$name"
        $name -c 'import sys; print("version=%d.%d" % sys.version_info[:2])'
        $name -c 'import venv, ensurepip' 2>/dev/null && echo venv=yes
        break
    fi
done
# A driver or a daemon that hangs must not keep the answer back.
limited() { if command -v timeout >/dev/null; then timeout -k 1 {limit} "$@"; else "$@"; fi; }
echo "machine=$(uname -m)"
echo "docker=$(limited docker version --format '{{.Server.Version}}' 2>/dev/null)"
echo "gpu=$(limited nvidia-smi -L 2>/dev/null | head -n 1)"
echo "linger=$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null)"
echo "uid=$(id -u)"
"""

_INSTALL = r"""
set -eu
base="$HOME/.local/share/stackctl"
mkdir -p "$base/.releases" "$HOME/.local/bin"
if [ -d "$base/current" ] && [ ! -L "$base/current" ]; then
    # From before there were releases.
    mv "$base/current" "$base/.releases/0"
    ln -s .releases/0 "$base/current"
fi
number=$(ls "$base/.releases" | sort -n | tail -n 1)
number=$((${number:-0} + 1))
while ! mkdir "$base/.releases/$number" 2>/dev/null; do
    [ -d "$base/.releases/$number" ] || mkdir "$base/.releases/$number"  # says why it cannot
    number=$((number + 1))
done
release="$base/.releases/$number"
trap 'rm -rf "$release"' EXIT
tar -xf - -C "$release"
{python} -m venv "$release/venv"
python="$release/venv/bin/python"
"$python" -m pip install -q --disable-pip-version-check --no-index \
    --find-links "$release/wheels" --require-hashes -r "$release/requirements.txt"
"$python" -m pip install -q --disable-pip-version-check --no-index --no-deps "$release/wheels"/stackctl-*.whl
rm -rf "$release/wheels"
# Only what starts becomes the current one.
"$python" -c "from stackctl.cli.main import main; main()" --version
touch "$release/ready"
ln -s ".releases/$number" "$base/current.$number"
"$python" -c 'import os, sys; os.replace(*sys.argv[1:])' "$base/current.$number" "$base/current"
trap - EXIT
# Into the release itself, not through the link: a command keeps the code it was started with.
program="$HOME/.local/bin/stackctl"
cat > "$program.$number" <<END
#!/bin/sh
release=\$(cd -P "$base/current" && pwd) || exit 1
exec "\$release/venv/bin/python" -c "from stackctl.cli.main import main; main()" "\$@"
END
chmod 755 "$program.$number"
mv "$program.$number" "$program"
"$python" -m stackctl.hosts.releases "$base"
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
    script = _LOOK.replace("{limit}", str(LOOK_LIMIT))
    answer = remote.ask(host, ["sh", "-c", script], timeout=LOOK_WAIT, batch=terminal() is None)
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
    with tempfile.TemporaryDirectory(prefix="stackctl-bootstrap-") as folder:
        wheels = Path(folder) / "wheels"
        wheels.mkdir()
        say("building the wheel and fetching its locked dependencies")
        wheel.make_all(wheels, facts.version, facts.machine)
        say("copying and installing")
        _install(host, facts, _bundle(wheels, wheel.lock()))
    for note in facts.notes(host.destination.words):
        say(f"note: {note}")
    return facts


def _bundle(wheels: Path, lock: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(wheels, "wheels")
        tar.add(lock, "requirements.txt")
    return buffer.getvalue()


def _install(host: Host, facts: Facts, bundle: bytes) -> None:
    script = _INSTALL.replace("{python}", facts.python)
    line = remote.argv(host, ["sh", "-c", script], batch=terminal() is None)
    try:
        done = subprocess.run(line, input=bundle, capture_output=True, timeout=INSTALL_WAIT)
    except subprocess.TimeoutExpired:
        raise TunnelError(
            f"the installation on {host.name} did not end in {INSTALL_WAIT / 60:g} minutes; "
            "nothing there has changed unless it ends later",
            fix=f"stackctl host bootstrap {host.name}",
        ) from None
    if done.returncode == remote.SSH_FAILED:
        raise remote.explain(host, done.stderr.decode(errors="replace"))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise StackctlError(
            f"the installation on {host.name} failed: {said[-1]}", fix=f"ssh {host.destination.words} df -h"
        )
