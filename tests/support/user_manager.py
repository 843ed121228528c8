"""`systemctl --user` for a test's own folder, where no user manager of systemd can run.

Starts what a unit says, again when it ends (unless RestartPreventExitStatus= forbids it), and stops it when
asked to.
The process that does that for a unit is its manager: while it lives, the unit is active.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

_SYSTEMCTL = """#!{python}
import contextlib, fcntl, os, pathlib, shlex, signal, subprocess, sys, time
units, state, env = pathlib.Path({units!r}), pathlib.Path({state!r}), {env}

def alive(name):
    try:
        with open(state / name) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False

def manage(name):
    text = (units / name).read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
    final = settings["RestartPreventExitStatus"].split()
    stopping = []
    while not stopping:
        with open(state / (name + ".journal"), "ab") as journal:
            child = subprocess.Popen(shlex.split(settings["ExecStart"]), env=env, cwd="/", stdout=journal,
                stderr=journal, stdin=subprocess.DEVNULL, start_new_session=True)
        def stop(*_):
            stopping.append(True)
            child.terminate()
        signal.signal(signal.SIGTERM, stop)
        if str(child.wait()) in final:
            break
        time.sleep(0.2)

def start(name):
    lock = open(state / name, "a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            manage(name)
        finally:
            os._exit(0)

def stop(name):
    while alive(name):
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int((state / name).read_text()), signal.SIGTERM)
        time.sleep(0.05)

_, user, verb, *names = sys.argv
assert user == "--user"
name = names[-1] if names else ""
state.mkdir(exist_ok=True)
if verb == "daemon-reload":
    pass
elif verb == "enable":
    (state / (name + ".enabled")).touch()
elif verb == "disable":
    assert names[0] == "--now"
    stop(name)
    (state / (name + ".enabled")).unlink()
elif verb == "restart":
    stop(name)
    start(name)
elif verb == "stop":
    stop(name)
elif verb == "is-active":
    print("active" if alive(name) else "inactive")
    sys.exit(not alive(name))
else:
    sys.exit(f"no such verb: {{verb}}")
"""


def install(folder: Path, units: Path, env: Mapping[str, str]) -> Path:
    """Make the program in `folder`; where it keeps what it knows of units."""
    folder.mkdir(exist_ok=True)
    state = folder / "units"
    program = folder / "systemctl"
    text = _SYSTEMCTL.format(
        python=sys.executable, units=str(units), state=str(state), env=json.dumps(dict(env))
    )
    program.write_text(text)
    program.chmod(0o755)
    return state
