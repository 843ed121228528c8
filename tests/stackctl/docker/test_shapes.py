"""Every shape comes up, goes down and comes up again; its neighbours are stand-ins, the proxy is the real
Caddy."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support.stacks import Folder, engine, free_port, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
PROXY = "stackctl-proxy:2"


def neighbour(image: str, inside: int) -> dict[str, Any]:
    check = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{inside}/api/version', timeout=2)"
    return {
        "enabled": True,
        "image": image,
        "port": free_port(),
        "environment": {"PORT": inside},
        "healthcheck": ["python3", "-c", check],
        "start_grace": "30s",
    }


@pytest.mark.parametrize("names", [("webui",), ("webui", "comfyui")])
def test_shapes_with_neighbours(docker_folder: Folder, standin_image: str, names: tuple[str, ...]) -> None:
    document = engine(standin_image, free_port())
    inside = {"webui": 8080, "comfyui": 8188}
    for name in names:
        document["services"][name] = neighbour(standin_image, inside[name])
    docker_folder.write(document)
    for _ in range(2):
        docker_folder.ok("up")
        services = docker_folder.ok("status", "--json").json["services"]
        assert {one["name"]: one["health"] for one in services} == dict.fromkeys(
            ("engine", *names), "healthy"
        )
        assert all(port["host_ip"] == "127.0.0.1" for one in services for port in one["ports"])
        docker_folder.ok("down")


def test_secrets_are_in_no_environment_and_only_their_service_can_read_them(
    docker_folder: Folder, standin_image: str
) -> None:
    document = engine(standin_image, free_port())
    document["services"]["webui"] = neighbour(standin_image, 8080)
    docker_folder.write(document)
    docker_folder.ok("up")
    value = (docker_folder.state / "secrets" / "webui_secret_key").read_text().strip()
    assert docker_folder.ok("exec", "webui", "cat", "/run/secrets/webui_secret_key").out.strip() == value
    assert docker_folder.run("exec", "engine", "cat", "/run/secrets/webui_secret_key").code != 0
    services = docker_folder.ok("status", "--json").json["services"]
    inspected = subprocess.run(
        ["docker", "inspect", *[one["id"] for one in services]], capture_output=True, text=True, check=True
    ).stdout
    rendered = "".join(path.read_text() for path in docker_folder.state.rglob("compose.yaml"))
    assert value not in inspected + rendered + json.dumps(services)
    for one in json.loads(inspected):
        host = one["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["PidsLimit"] == 4096
        assert "no-new-privileges:true" in host["SecurityOpt"] and one["Config"]["User"] not in (
            "",
            "0",
            "root",
        )
    before = next(one["started_at"] for one in services if one["name"] == "webui")
    docker_folder.ok("secrets", "rotate", "webui_secret_key")
    now = docker_folder.ok("exec", "webui", "cat", "/run/secrets/webui_secret_key").out.strip()
    assert now != value
    after = docker_folder.ok("status", "--json").json["services"]
    assert next(one["started_at"] for one in after if one["name"] == "webui") != before
    assert next(one["started_at"] for one in after if one["name"] == "engine") == services[0]["started_at"]


def test_behind_the_proxy(docker_folder: Folder, standin_image: str) -> None:
    if subprocess.run(["docker", "image", "inspect", PROXY], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no image {PROXY} (IMAGE=proxy make images)")
    document = engine(standin_image, free_port())
    port = free_port()
    document["services"]["proxy"] = {"enabled": True, "port": port, "webui_port": free_port()}
    docker_folder.write(document)
    docker_folder.ok("up")
    key = (docker_folder.state / "secrets" / "proxy_key").read_text().strip()
    # The local CA's certificate is in the data folder, where root put it.
    context = ssl.create_default_context()
    root = docker_folder.ok("exec", "proxy", "cat", "/data/caddy/pki/authorities/local/root.crt").out
    context.load_verify_locations(cadata=root)

    def asks(value: str) -> int:
        request = urllib.request.Request(
            f"https://localhost:{port}/api/version", headers={"Authorization": f"Bearer {value}"}
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    wait_for(lambda: asks(key) == 200, "the key opens")
    assert asks("wrong") == 401
