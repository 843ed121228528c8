"""Every shape with every GPU mode keeps the policy; and the policy sees each way of breaking it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from stackctl.config import StackConfig
from stackctl.errors import ConfigError
from stackctl.render import Facts, policy, render
from stackctl.render.gpu import GpuChoice
from stackctl.render.hardening import EXCEPTIONS

PIN = "sha256:" + "0" * 64
SHAPES = [
    {},
    {"webui": {"enabled": True}},
    {"webui": {"enabled": True}, "comfyui": {"enabled": True}},
    {"webui": {"enabled": True}, "comfyui": {"enabled": True}, "proxy": {"enabled": True}},
]
MODES = ["nvidia", "nvidia-runtime", "cdi", "rocm", "none"]


def config(shape: dict[str, Any], **more: Any) -> StackConfig:
    return StackConfig.model_validate({"name": "t", "services": shape, **more})


def facts(stack: StackConfig, mode: str = "none") -> Facts:
    devices = ("/dev/kfd", "/dev/dri/renderD128") if mode == "rocm" else ()
    gpu = GpuChoice(mode, "test", devices, (44,))  # type: ignore[arg-type]
    return Facts("docker", gpu=gpu, pins={one.image: PIN for one in stack.services.enabled().values()})


@pytest.mark.parametrize(("shape", "mode"), list(itertools.product(SHAPES, MODES)))
def test_every_shape_and_gpu_mode_keeps_the_policy(shape: dict[str, Any], mode: str) -> None:
    stack = config(shape)
    document = render(stack, facts(stack, mode)).document
    assert not list(policy.findings(document, stack))
    assert not policy.unpinned(document)
    for body in document["services"].values():
        assert all(port["host_ip"] == "127.0.0.1" for port in body["ports"])
    engine = document["services"]["engine"]
    if mode in ("nvidia", "cdi"):
        device = engine["deploy"]["resources"]["reservations"]["devices"][0]
        assert device["driver"] == mode and device["capabilities"] == ["gpu"]
    if mode == "nvidia-runtime":
        assert engine["runtime"] == "nvidia" and engine["environment"]["NVIDIA_VISIBLE_DEVICES"] == "all"
    if mode == "rocm":
        assert engine["devices"] == ["/dev/kfd:/dev/kfd", "/dev/dri/renderD128:/dev/dri/renderD128"]
        assert engine["group_add"] == ["44"]
    if mode == "none":
        assert not {"deploy", "runtime", "devices"} & set(engine)


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, value = path

    def change(body: dict[str, Any]) -> None:
        inner: Any = body
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("ports", 0, "host_ip", "0.0.0.0"), "not loopback"),
        (_set("ports", ["11434:11434"]), "no host address"),
        (_set("network_mode", "host"), "bypasses"),
        (_set("healthcheck", {}), "no healthcheck"),
        (_set("healthcheck", "test", ["NONE"]), "no healthcheck"),
        (_set("mem_limit", None), "no mem_limit"),
        (_set("read_only", False), "read_only is False"),
        (_set("cap_drop", []), "cap_drop is []"),
        (_set("security_opt", None), "security_opt"),
        (_set("privileged", True), "privileged"),
        (_set("pids_limit", None), "pids_limit"),
        (_set("restart", "no"), "no service waits for its completion"),
        (_set("environment", "API_KEY", "hunter2hunter2"), "looks like a secret"),
        (_set("volumes", 0, "source", "/var/run/docker.sock"), "mounts /var/run/docker.sock, which is root"),
        (_set("volumes", 0, "source", "/srv/docker.sock"), "root on this host"),
        *[
            (_set("volumes", 0, "source", folder), f"with {folder}, which is root on this host")
            for folder in (
                "/",
                "/run",
                "/var/run",
                "/var/run/",
                "/srv/../run",
                "/run/containerd",
                "/run/user",
            )
        ],
        (_set("volumes", 0, "source", "/run/user/1000"), "/run/user/1000/docker.sock"),
        (_set("volumes", 0, "target", "/tmp/"), "two mounts at /tmp"),
        (_set("depends_on", {"database": {}}), "depends on database, which is not in this stack"),
    ],
)
def test_each_way_of_breaking_the_policy_is_found(change: Callable[[Any], None], says: str) -> None:
    stack = config({})
    document = copy.deepcopy(dict(render(stack, facts(stack)).document))
    change(document["services"]["engine"])
    assert says in "\n".join(policy.findings(document, stack))


@pytest.mark.parametrize("folder", ["/srv/run", "/var/lib/models", "/run/user/1000/app", "/runs", "/var"])
def test_a_folder_without_a_socket_may_be_mounted(folder: str) -> None:
    stack = config({"engine": {"volumes": [{"source": folder, "target": "/more"}]}})
    assert render(stack, facts(stack)).document["services"]["engine"]["volumes"][1]["source"] == folder


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"engine": {"enabled": False}, "webui": {"enabled": True}}, "webui is of no use without the engine"),
        ({"engine": {"enabled": False}, "proxy": {"enabled": True}}, "proxy is of no use without the engine"),
        ({"engine": {"secrets": ["a", "b", "b"]}}, "'b' is listed twice"),
        (
            {"engine": {"volumes": [{"source": "/a", "target": "/x/"}, {"source": "/b", "target": "/x"}]}},
            "'/x' is listed twice",
        ),
    ],
)
def test_what_compose_would_refuse_is_refused_before(shape: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(shape)


def test_a_mount_over_one_of_the_stacks_own_is_refused() -> None:
    stack = config({"engine": {"volumes": [{"source": "/srv", "target": "/models"}]}})
    with pytest.raises(ConfigError) as caught:
        render(stack, facts(stack))
    assert "two mounts at /models" in "".join(caught.value.problems)


def test_a_secret_that_a_service_has_anyway_may_be_listed() -> None:
    stack = config({"webui": {"enabled": True, "secrets": ["webui_secret_key"]}})
    secrets = render(stack, facts(stack)).document["services"]["webui"]["secrets"]
    assert secrets == ["webui_admin_password", "webui_secret_key"]


def test_a_one_shot_that_is_waited_for_is_adopted() -> None:
    stack = config({})
    document = copy.deepcopy(dict(render(stack, facts(stack)).document))
    once = copy.deepcopy(document["services"]["engine"])
    once |= {"restart": "no", "healthcheck": {}}
    document["services"]["prepare"] = once
    document["services"]["engine"]["depends_on"] = {
        "prepare": {"condition": "service_completed_successfully"}
    }
    assert not list(policy.findings(document, stack))


def test_exceptions_have_reasons() -> None:
    assert all(len(one.reason) > 20 for exceptions in EXCEPTIONS.values() for one in exceptions)


def test_a_secret_in_the_environment_is_refused_and_a_setting_is_not() -> None:
    clear = config({"engine": {"environment": {"HF_TOKEN": "abcdefghijkl"}}})
    with pytest.raises(ConfigError) as caught:
        render(clear, facts(clear))
    assert "abcdefghijkl" not in "".join(caught.value.problems)
    fine = config({"engine": {"environment": {"OLLAMA_KEEP_ALIVE": "30m", "HF_TOKEN": "/run/secrets/hf"}}})
    assert render(fine, facts(fine)).document


def test_values_cannot_change_the_structure() -> None:
    nasty = '"\n    privileged: true\n    x: "${HOME} $$ {{ 7 * 7 }}'
    stack = config({"engine": {"environment": {"A": nasty}}})
    body = render(stack, facts(stack)).document["services"]["engine"]
    assert "privileged" not in body
    assert body["environment"]["A"] == nasty.replace("$", "$$")


def test_lan_is_published_everywhere_and_said() -> None:
    stack = config({}, expose="lan")
    rendered = render(stack, facts(stack))
    assert rendered.document["services"]["engine"]["ports"][0]["host_ip"] == "0.0.0.0"
    assert any("every address" in note for note in rendered.notes)


def test_an_unpinned_image_is_known() -> None:
    stack = config({})
    assert policy.unpinned(render(stack, Facts("docker")).document) == ["engine"]


def test_rendering_twice_gives_the_same_bytes() -> None:
    stack = config(SHAPES[3])
    assert render(stack, facts(stack)).digest == render(stack, facts(stack)).digest


def test_webui_is_local_first_and_its_secrets_are_files() -> None:
    stack = config({"webui": {"enabled": True}})
    body = render(stack, facts(stack)).document["services"]["webui"]
    environment = body["environment"]
    assert environment["OFFLINE_MODE"] == "true" and environment["ENABLE_OPENAI_API"] == "false"
    assert environment["WEBUI_AUTH"] == "true" and environment["ENABLE_PERSISTENT_CONFIG"] == "false"
    assert body["secrets"] == ["webui_admin_password", "webui_secret_key"]
    assert body["healthcheck"]["start_period"] == "900s"
    assert not {"WEBUI_SECRET_KEY", "WEBUI_ADMIN_PASSWORD"} & set(environment)


@pytest.mark.parametrize(
    ("shape", "allowed"),
    [
        ({"webui": {"enabled": True}}, "http://127.0.0.1:3000;http://localhost:3000"),
        (
            {"webui": {"enabled": True, "port": 3001}, "proxy": {"enabled": True, "webui_port": 443}},
            "http://127.0.0.1:3001;http://localhost:3001;https://localhost;https://127.0.0.1",
        ),
        ({"webui": {"enabled": True, "origin": "https://LLM.example.org:443/"}}, "https://llm.example.org"),
        (
            {"webui": {"enabled": True, "origin": ["http://127.0.0.1:3001", "https://a.b:8444"]}},
            "http://127.0.0.1:3001;https://a.b:8444",
        ),
    ],
)
def test_the_web_ui_is_told_every_address_that_it_is_published_at(
    shape: dict[str, Any], allowed: str
) -> None:
    stack = config(shape)
    environment = render(stack, facts(stack)).document["services"]["webui"]["environment"]
    assert environment["CORS_ALLOW_ORIGIN"] == allowed
    assert environment["WEBUI_URL"] == allowed.partition(";")[0]
    # A cookie for https alone would lock everybody out at the others.
    assert ("WEBUI_SESSION_COOKIE_SECURE" in environment) == ("http:" not in allowed)


@pytest.mark.parametrize(
    "origin", ["https://a/b", "https://a;https://b", "http://*", "ftp://a", "http://u@a"]
)
def test_an_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match=r"services\.webui\.origin"):
        config({"webui": {"enabled": True, "origin": origin}})


def test_on_the_network_the_addresses_of_the_web_ui_are_said() -> None:
    stack = config({"webui": {"enabled": True}}, expose="lan")
    assert any("services.webui.origin" in note for note in render(stack, facts(stack)).notes)
    told = config({"webui": {"enabled": True, "origin": "http://10.0.0.5:3000"}}, expose="lan")
    assert not any("services.webui.origin" in note for note in render(told, facts(told)).notes)


def test_the_memory_of_every_service_is_limited_unless_the_stack_file_says_none() -> None:
    def limit(host: int, **engine: Any) -> int | None:
        stack = config({"engine": engine})
        document = render(stack, dataclasses.replace(facts(stack), memory=host)).document
        found: int | None = document["services"]["engine"].get("mem_limit")
        assert document["services"]["engine"].get("memswap_limit") == found
        return found

    assert limit(64 << 30) == (57 << 30) + (512 << 20)
    assert limit(8 << 30) == 6 << 30
    assert limit(2 << 30) == 1 << 30
    # Another kernel on the same host: nothing to recreate.
    assert limit((64 << 30) - (9 << 20)) == limit(64 << 30)
    assert limit(64 << 30, limits={"memory": "48g"}) == 48 << 30
    assert limit(64 << 30, limits={"memory": "none"}) is None
    assert limit(64 << 30, limits={"pids": 100}) == limit(64 << 30)


def test_the_limits_together_leave_the_host_its_reserve() -> None:
    def limits(host: int, **services: Any) -> dict[str, int]:
        stack = config(services)
        document = render(stack, dataclasses.replace(facts(stack), memory=host)).document
        return {name: body.get("mem_limit", 0) for name, body in document["services"].items()}

    on = {"enabled": True}
    both = limits(64 << 30, comfyui=on)
    assert both["engine"] == both["comfyui"] == (28 << 30) + (512 << 20)
    whole = limits(64 << 30, webui=on, comfyui={**on, "limits": {"memory": "16g"}}, proxy=on)
    assert sum(whole.values()) <= (64 << 30) - (64 << 30) // 10 and whole["engine"] == 40 << 30
    # On a small host the neighbours' limits are more than they use: half is the engine's.
    assert limits(4 << 30, webui=on, prometheus=on)["engine"] == 1 << 30
    assert (
        limits(64 << 30, engine={"limits": {"memory": "none"}}, comfyui=on)["comfyui"] == 57 * 2**30 + 2**29
    )


def test_the_sharing_of_a_gpu_is_said_and_kept() -> None:
    def rendered(mode: str, **comfyui: Any) -> tuple[dict[str, Any], str]:
        stack = config({"comfyui": {"enabled": True, **comfyui}})
        found = render(stack, facts(stack, mode))
        return found.document["services"], "\n".join(found.notes)

    services, notes = rendered("cdi")
    said = "engine and comfyui share the GPU: who loads first has its memory"
    assert f"{said}; services.comfyui.gpu_memory makes" in notes
    assert {services[name]["labels"]["dev.stackctl.gpu"] for name in ("engine", "comfyui")} == {said}
    assert "OLLAMA_GPU_OVERHEAD" not in services["engine"]["environment"]
    services, notes = rendered("nvidia", gpu_memory="8g")
    assert "the engine leaves 8 GiB of it free" in notes
    assert services["engine"]["environment"]["OLLAMA_GPU_OVERHEAD"] == str(8 << 30)
    assert "OLLAMA_GPU_OVERHEAD" not in services["comfyui"]["environment"]
    services, notes = rendered("none", gpu_memory="8g")
    assert "share" not in notes and "dev.stackctl.gpu" not in services["engine"]["labels"]
    assert "OLLAMA_GPU_OVERHEAD" not in services["engine"]["environment"]


def test_one_limit_that_is_written_leaves_the_others_as_they_are() -> None:
    stack = config({"webui": {"enabled": True, "limits": {"cpus": 2}}})
    limits = stack.services.webui.limits
    assert (limits.memory, limits.cpus, limits.pids) == (1 << 30, 2, 4096)
