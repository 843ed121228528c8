"""The docker program and the SDK talk to the same engine, however it was chosen; held to what `docker` itself
says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stackctl.errors import StackctlError
from stackctl.runtime.command import clean_environment
from stackctl.runtime.docker import endpoint
from tests.support.gates import need_program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two contexts, made by the docker program."""
    need_program("docker")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("one", "two"):
        docker("context", "create", name, "--docker", f"host=unix:///run/{name}.sock")
    return tmp_path


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def theirs() -> str:
    """Where the program goes by itself, in our environment."""
    shown: str = json.loads(docker("context", "inspect"))[0]["Endpoints"]["docker"]["Host"]
    return shown


CASES: dict[str, dict[str, str]] = {
    "nothing": {},
    "a host": {"DOCKER_HOST": "unix:///run/mine.sock", "DOCKER_CONTEXT": "one"},
    "a context": {"DOCKER_CONTEXT": "one"},
    "the default by name": {"DOCKER_CONTEXT": "default"},
}


@pytest.mark.docker
@pytest.mark.parametrize("used", [None, "two"])
@pytest.mark.parametrize("case", CASES)
def test_as_the_docker_program_has_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, case: str, used: str | None
) -> None:
    if used:
        docker("context", "use", used)
    for name, value in CASES[case].items():
        monkeypatch.setenv(name, value)
    want = CASES[case].get("DOCKER_HOST") or theirs()
    assert endpoint.resolve().host == want
    # What a command is given says the same, with nothing left to be decided.
    given = clean_environment()
    assert given.get("DOCKER_HOST", endpoint.DEFAULT) == want and "DOCKER_CONTEXT" not in given
    assert endpoint.resolve().environment().items() <= given.items()


@pytest.mark.docker
def test_the_sdk_fails_at_the_same_socket(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackctl.config import StackConfig
    from stackctl.runtime.docker.runtime import DockerRuntime

    docker("context", "use", "two")
    with pytest.raises(
        StackctlError, match=r"no Docker Engine answers at unix:///run/two.sock \(context 'two'"
    ):
        DockerRuntime(StackConfig(name="t")).status()


@pytest.mark.docker
def test_a_context_that_is_not_there_is_an_error_and_not_another_engine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(StackctlError, match="docker context 'gone' \\(named by DOCKER_CONTEXT\\)"):
        endpoint.resolve()
    assert clean_environment()["DOCKER_CONTEXT"] == "gone"


@pytest.mark.docker
def test_certificates_of_a_context_go_along(home: Path) -> None:
    for name in ("ca", "cert", "key"):
        (home / f"{name}.pem").write_text("x")
    files = ",".join(f"{name}={home}/{name}.pem" for name in ("ca", "cert", "key"))
    made = subprocess.run(
        ["docker", "context", "create", "tls", "--docker", f"host=tcp://10.0.0.1:2376,{files}"],
        capture_output=True,
        check=False,
    )
    if made.returncode:  # it looks into the certificates: then real ones are needed
        docker("context", "create", "tls", "--docker", "host=tcp://10.0.0.1:2376")
        meta = next(path for path in home.rglob("meta.json") if '"tls"' in path.read_text())
        shutil.copytree(home, home / ".docker/contexts/tls" / meta.parent.name / "docker", ignore=_folders)
    found = endpoint.resolve({**os.environ, "DOCKER_CONTEXT": "tls"})
    assert found.host == "tcp://10.0.0.1:2376" and found.certificates is not None
    given = found.environment()
    assert (Path(given["DOCKER_CERT_PATH"]) / "key.pem").exists() and given["DOCKER_TLS_VERIFY"] == "1"


def _folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_dir()]


@pytest.mark.docker
def test_doctor_and_health_look_at_the_same_engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackctl.config import StackConfig
    from stackctl.doctor.docker import socket_permission
    from stackctl.doctor.host import Host
    from stackctl.health.look.docker import DockerView
    from stackctl.health.look.runtime import RuntimeUnreachable

    host = Host(StackConfig(name="t", runtime="docker"))
    docker("context", "use", "two")
    assert "/run/two.sock does not exist" in socket_permission(host).evidence
    with pytest.raises(RuntimeUnreachable):
        DockerView("t").ping()
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    found = socket_permission(host)
    assert found.severity == "error" and "context 'gone'" in found.evidence
    with pytest.raises(RuntimeUnreachable, match="context 'gone'"):
        DockerView("t").ping()
