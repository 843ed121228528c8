"""The doctor on hosts that are well, ill, and not as it expected."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stackctl import __version__
from stackctl.config import StackConfig
from stackctl.doctor import docker, gpu, system
from stackctl.doctor.checkup import BEFORE_UP, CHECKS, DOCKER_ALONE, examine
from stackctl.doctor.finding import Finding
from stackctl.doctor.host import Host, version_numbers
from stackctl.errors import UsageError
from stackctl.render.gpu import GpuEvidence
from stackctl.runtime.command import CommandResult
from stackctl.runtime.generations import GenerationStore

CARD = ("GPU 0: NVIDIA H100 (UUID: GPU-1)",)


class FakeHost(Host):
    """A host whose commands answer what the test says; everything else is `not found`."""

    def __init__(self, answers: dict[str, tuple[int, str, str]], evidence: GpuEvidence, **more: Any) -> None:
        super().__init__(command=self.answer, **more)
        self._answers, self._evidence = answers, evidence

    def answer(self, argv: list[str]) -> CommandResult:
        line = " ".join(argv)
        code, out, err = next(
            (value for key, value in self._answers.items() if key in line), (127, "", "not found")
        )
        return CommandResult(tuple(argv), code, out, err, 0.0)

    @property
    def gpu(self) -> GpuEvidence:  # type: ignore[override]
        return self._evidence


def host(info: dict[str, Any] | None = None, evidence: GpuEvidence | None = None, **answers: Any) -> FakeHost:
    said = dict(answers.pop("answers", {}))
    if info is not None:
        said["docker info"] = (0, json.dumps({"ServerVersion": "28.1.0", **info}), "")
    return FakeHost(said, evidence or GpuEvidence(), **answers)


@pytest.mark.parametrize(
    ("answer", "severity", "says"),
    [
        ((0, "28.0.1\n", ""), "ok", "28.0.1"),
        ((127, "", "not found"), "error", "not installed"),
        ((1, "", "permission denied while trying to connect"), "error", "no permission"),
        ((1, "", "Cannot connect to the Docker daemon"), "error", "no Docker Engine answers"),
    ],
)
def test_docker(answer: tuple[int, str, str], severity: str, says: str) -> None:
    found = docker.docker(host(answers={"docker version": answer}, config=StackConfig(runtime="docker")))
    assert found.severity == severity and says in found.evidence
    assert severity == "ok" or found.fix


def test_no_docker_is_no_trouble_for_a_local_stack() -> None:
    assert docker.docker(host(config=StackConfig(runtime="local"))).severity == "skipped"


DOWN = {"docker version": (1, "", "Cannot connect to the Docker daemon")}
NO_COMPOSE = {"docker version": (0, "28.0.1\n", ""), "docker info": (0, '{"ServerVersion": "28.0.1"}', "")}


@pytest.mark.parametrize(
    ("answers", "why"),
    [({}, "not installed"), (DOWN, "no Docker Engine answers"), (NO_COMPOSE, "no compose plug-in")],
)
@pytest.mark.parametrize("config", [None, StackConfig()])
def test_where_auto_comes_to_local_nothing_of_docker_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    config: StackConfig | None,
    answers: dict[str, tuple[int, str, str]],
    why: str,
) -> None:
    """The default stack works there: `up` starts processes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = {one.id: one for one in examine(host(answers=answers, config=config), sorted(DOCKER_ALONE))}
    assert {one.severity for one in found.values()} == {"skipped"}
    assert why in found["compose-version"].evidence
    (docker_itself,) = examine(host(answers=answers, config=config), ["docker"])
    assert docker_itself.severity in ("info", "ok") and docker_itself.good


def test_a_socket_that_auto_may_not_use_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    denied = {"docker version": (1, "", "permission denied while trying to connect")}
    found = docker.docker(host(answers=denied, config=StackConfig()))
    assert found.severity == "warning" and "usermod" in str(found.fix)


def test_a_stack_that_is_up_on_docker_stays_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`auto` does not move it when the engine is down, so that is an error and no matter of taste."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = GenerationStore("ai")
    store.activate(store.write({"compose.yaml": "{}"}, runtime="docker", lock={}, meta={}))
    down = host(answers=DOWN, config=StackConfig())
    assert docker.docker(down).severity == "error"
    assert down.choice.reason == "generation 1 runs on it"


def test_engine_before_28_lets_neighbours_in() -> None:
    assert docker.docker_version(host({"ServerVersion": "26.1.5+dfsg1"})).severity == "warning"
    assert docker.docker_version(host({"ServerVersion": "28.0.0"})).severity == "ok"


def test_old_compose() -> None:
    old = host({}, answers={"compose version": (0, "2.20.1\n", "")})
    assert docker.compose_version(old).severity == "error"
    assert (
        docker.compose_version(host({}, answers={"compose version": (0, "v2.26.1-4\n", "")})).severity == "ok"
    )


@pytest.mark.parametrize(
    ("mode", "severity"),
    [
        ("auto", "warning"),
        ("nvidia", "warning"),
        ("nvidia-runtime", "warning"),
        ("cdi", "ok"),
        ("none", "ok"),
    ],
)
def test_systemd_cgroups_lose_the_gpu_unless_it_is_rendered_by_cdi(mode: str, severity: str) -> None:
    """A spec that lies about protects nobody: `auto` takes the runtime where there is one."""
    both = GpuEvidence(CARD, ("nvidia", "runc"), cdi_specs=("x",), cdi_folders=("/etc/cdi",))
    config = StackConfig.model_validate({"gpu": {"mode": mode}})
    found = docker.cgroup_driver(host({"CgroupDriver": "systemd"}, both, config=config))
    assert found.severity == severity
    assert severity == "ok" or ("daemon-reload" in found.evidence and "gpu.mode: cdi" in str(found.fix))
    assert docker.cgroup_driver(host({"CgroupDriver": "cgroupfs"}, both, config=config)).good
    bare = host({"CgroupDriver": "systemd"}, GpuEvidence(CARD, ("nvidia",)))
    assert "nvidia-ctk cdi generate" in str(docker.cgroup_driver(bare).fix)
    assert docker.cgroup_driver(host({"CgroupDriver": "systemd"})).good


def test_rootless_and_shifted_ids_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    own = docker.rootless(host({"SecurityOptions": ["name=rootless"]}))
    assert own.severity == "warning" and "below 1024" in own.evidence
    loose = docker.rootless(host({"SecurityOptions": ["name=rootless"], "CgroupDriver": "none"}))
    assert loose.severity == "warning" and "limits of memory" in loose.evidence
    shifted = docker.rootless(host({"SecurityOptions": ["name=userns"]}))
    assert shifted.severity == "error" and "could not read" in shifted.evidence
    assert docker.rootless(host({"SecurityOptions": ["name=seccomp"]})).severity == "ok"
    assert "rootless" in BEFORE_UP
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    another = docker.rootless(host({"SecurityOptions": ["name=rootless"]}))
    assert another.severity == "error" and another.fix == "run stackctl as that user"


def test_ufw_does_not_govern_published_ports(tmp_path: Path) -> None:
    ufw = tmp_path / "etc/ufw/ufw.conf"
    ufw.parent.mkdir(parents=True)
    ufw.write_text("ENABLED=yes\n")
    found = docker.firewall(host({}, config=StackConfig(expose="lan"), root=tmp_path))
    assert found.severity == "warning" and "bypass" in found.evidence
    assert docker.firewall(host({}, config=StackConfig())).severity == "ok"


def test_a_stale_cdi_spec_names_the_missing_file(tmp_path: Path) -> None:
    there = tmp_path / "libcuda.so.1"
    there.write_text("")
    spec = tmp_path / "nvidia.yaml"
    spec.write_text(f'mounts:\n- hostPath: {there}\n- hostPath: "/usr/lib/libcuda.so.550.1"\n')
    evidence = GpuEvidence(cdi_specs=(str(spec),), cdi_folders=(str(tmp_path),))
    found = gpu.cdi_spec(host(evidence=evidence))
    assert (
        found.severity == "error" and "libcuda.so.550.1" in found.evidence and str(spec) in (found.fix or "")
    )
    spec.write_text(f"mounts:\n- hostPath: {there}\n")
    assert gpu.cdi_spec(host(evidence=evidence)).severity == "ok"


@pytest.mark.parametrize("mode", ["none", "nvidia", "auto"])
def test_a_stale_cdi_spec_that_is_not_used_refuses_nothing(tmp_path: Path, mode: str) -> None:
    spec = tmp_path / "nvidia.yaml"
    spec.write_text('mounts:\n- hostPath: "/usr/lib/libcuda.so.550.1"\n')
    left = GpuEvidence(cdi_specs=(str(spec),), cdi_stale=(str(spec),), cdi_folders=(str(tmp_path),))
    config = StackConfig.model_validate({"gpu": {"mode": mode}})
    found = gpu.cdi_spec(host(evidence=left, config=config))
    assert found.good and "is stale" in found.evidence and "does not use it" in found.evidence


def test_cdi_that_the_engine_does_not_offer_is_refused_before_up() -> None:
    config = StackConfig.model_validate({"gpu": {"mode": "cdi"}})
    off = gpu.cdi_spec(host(evidence=GpuEvidence(cdi_specs=("/etc/cdi/nvidia.yaml",)), config=config))
    assert off.severity == "error" and "switched off" in off.evidence and '"cdi": true' in str(off.fix)
    none = gpu.cdi_spec(host(evidence=GpuEvidence(cdi_folders=("/etc/cdi",)), config=config))
    assert none.severity == "error" and "nvidia-ctk cdi generate" in str(none.fix)
    assert {"cdi-spec", "docker-version"} <= set(BEFORE_UP)


def test_gpu_without_runtime_and_cpu_fallback() -> None:
    bare = GpuEvidence(CARD, ("runc",))
    assert gpu.runtime_registered(host(evidence=bare)).severity == "error"
    assert gpu.gpu(host(evidence=bare, config=StackConfig(runtime="docker"))).severity == "warning"
    strict = StackConfig.model_validate({"runtime": "docker", "gpu": {"require_gpu": True}})
    assert gpu.gpu(host(evidence=bare, config=strict)).severity == "error"


@pytest.mark.parametrize(
    ("image", "driver", "severity"),
    [
        ("CUDA_VERSION=12.4.1", "12.6", "ok"),
        ("CUDA_VERSION=12.4.1", "11.8", "error"),
        ("CUDA_VERSION=12.4.1", "12.2", "warning"),
        ("NVIDIA_DRIVER_CAPABILITIES=compute,utility", "12.2", "ok"),
        ("A=b", "12.6", "warning"),
    ],
)
def test_driver_versus_image(image: str, driver: str, severity: str) -> None:
    answers = {
        "image inspect": (0, f"PATH=/bin\n{image}\n", ""),
        "nvidia-smi": (0, f"CUDA Version: {driver} |", ""),
    }
    found = gpu.driver_and_image(host({}, GpuEvidence(CARD), config=StackConfig(), answers=answers))
    assert found.severity == severity


def test_an_engine_for_the_cpu_beside_a_gpu_is_told_which_image_to_take() -> None:
    answers = {"image inspect": (0, "PATH=/bin\n", "")}
    found = gpu.driver_and_image(host({}, GpuEvidence(CARD), config=StackConfig(), answers=answers))
    assert "would compute on the CPU" in found.evidence
    assert found.fix is not None and f"llm-engine:{__version__}-cuda" in found.fix
    not_wanted = StackConfig.model_validate({"gpu": {"mode": "none"}})
    assert gpu.driver_and_image(host({}, GpuEvidence(CARD), config=not_wanted, answers=answers)).good


def test_the_models_folder_that_the_stack_file_names(tmp_path: Path) -> None:
    def look(folder: Path) -> Finding:
        services = {"engine": {"models_dir": str(folder)}}
        return system.models_folder(host(config=StackConfig.model_validate({"services": services})))

    assert look(tmp_path).severity == "ok"
    gone = look(tmp_path / "nvme" / "models")
    assert gone.severity == "error" and "does not exist; its disk would be /" in gone.evidence
    assert system.models_folder(host(config=StackConfig())).severity == "skipped"


def test_data_mount(tmp_path: Path) -> None:
    config = StackConfig(data_mount=tmp_path, data_dir=tmp_path / "d")
    assert system.data_mount(host(config=config)).severity == "error"
    beside = StackConfig(data_mount=Path("/"), data_dir=tmp_path)
    assert system.data_mount(host(config=beside)).severity == "ok"


def test_user_namespaces(tmp_path: Path) -> None:
    path = tmp_path / "proc/sys/user/max_user_namespaces"
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    assert system.user_namespaces(host(root=tmp_path)).severity == "warning"


def test_a_secret_that_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    from stackctl.runtime.secrets import SecretStore

    store = SecretStore("ai")
    store.set("a", "value-value")
    store.path("a").chmod(0o644)
    found = system.secrets_mode(host(config=StackConfig()))
    assert found.severity == "error" and "chmod 600" in (found.fix or "")


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Host) -> Any:
        raise RuntimeError("no such thing")

    monkeypatch.setitem(CHECKS, "disk", broken)
    (found,) = examine(host(), ["disk"])
    assert found.severity == "warning" and "no such thing" in found.evidence


def test_an_unknown_check_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'disk'"):
        list(examine(host(), ["dsik"]))


@pytest.mark.parametrize(("text", "numbers"), [("v2.26.1-4", (2, 26, 1)), ("28.0", (28, 0)), ("dev", ())])
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers
