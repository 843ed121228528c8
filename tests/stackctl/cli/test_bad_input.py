"""What a person gets wrong, or a host lacks, ends in one `error:`/`fix:` pair, the right exit code, and
nothing left behind. Each case is the real program against the real thing it complains about.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port

STACKCTL = str(Path(sys.executable).with_name("stackctl"))


def run(folder: Path, *args: str, before: list[str] | None = None, **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*(before or []), STACKCTL, *args],
        cwd=folder,
        env=os.environ | {"XDG_STATE_HOME": str(folder / "state")} | env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def stack_file(folder: Path, text: str) -> None:
    (folder / "stack.yaml").write_text(text)


def test_wrong_types_and_unknown_keys_all_at_once(tmp_path: Path) -> None:
    stack_file(tmp_path, "name: bad\nruntme: local\nservices:\n  engine:\n    port: abc\n")
    code, out, err = run(tmp_path, "up")
    assert (code, out) == (2, "")
    assert "stack.yaml:2: runtme: unknown key (did you mean 'runtime'?)" in err
    assert "stack.yaml:5: services.engine.port:" in err
    assert "'abc'" in err
    assert "fix: " in err
    assert not (tmp_path / "state").exists()


def test_a_named_stack_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "-f", "typo.yaml", "up")
    assert code == 2
    assert "typo.yaml does not exist" in err
    assert list(tmp_path.iterdir()) == []


def test_a_models_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "mnt" / "models"
    stack_file(
        tmp_path,
        f"name: bad\nruntime: local\nservices:\n  engine: {{port: {free_port()}, models_dir: {missing}}}\n",
    )
    code, _, err = run(tmp_path, "up")
    assert code == 3
    assert f"{missing} does not exist" in err
    assert f"fix: mkdir -p {missing}" in err
    assert not missing.parent.exists()


def test_a_data_mount_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    stack_file(
        tmp_path,
        f"name: bad\nruntime: local\ndata_mount: {tmp_path}/disk\ndata_dir: {tmp_path}/disk/ai\n"
        f"services:\n  engine: {{port: {free_port()}}}\n",
    )
    code, _, err = run(tmp_path, "up")
    assert code == 3
    assert f"{tmp_path}/disk is not mounted" in err
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_port_in_use_names_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        stack_file(tmp_path, f"name: bad\nruntime: local\nservices:\n  engine: {{port: {port}}}\n")
        code, _, err = run(tmp_path, "up")
    assert code == 3
    assert f"port {port} on 127.0.0.1 is taken by" in err
    assert f"(pid {os.getpid()})" in err
    assert "fix: stop it, or set services.engine.port" in err


def test_no_engine_answers(tmp_path: Path) -> None:
    stack_file(tmp_path, "name: bad\nruntime: docker\n")
    code, _, err = run(tmp_path, "up", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert code == 3
    assert "no Docker Engine answers" in err
    assert "fix: sudo systemctl start docker" in err


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="drops a capability of root's")
def test_no_permission_on_the_socket(tmp_path: Path) -> None:
    stack_file(tmp_path, "name: bad\nruntime: docker\n")
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        os.chown(path, 65534, 65534)
        # Root without the right to ignore permissions is an ordinary user to somebody else's socket.
        caps = "-dac_override,-dac_read_search"
        code, _, err = run(
            tmp_path,
            "up",
            before=["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"],
            DOCKER_HOST=f"unix://{path}",
        )
    assert code == 3
    assert "permission" in err
    assert "fix: " in err
    assert "usermod -aG docker" in err


@pytest.mark.docker
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="hides a folder in a mount namespace"
)
def test_no_compose_plugin(tmp_path: Path) -> None:
    stack_file(tmp_path, "name: bad\nruntime: docker\n")
    folders = [
        "/usr/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/local/lib/docker/cli-plugins",
    ]
    hide = "".join(f"mount -t tmpfs none {f}; " for f in folders if Path(f).is_dir())
    code, _, err = run(
        tmp_path,
        "up",
        before=["unshare", "--mount", "sh", "-c", hide + 'exec "$@"', "sh"],
        DOCKER_CONFIG=str(tmp_path),
    )
    assert code == 3
    assert "compose" in err
    assert "fix: " in err
