"""Every shape comes up, goes down and comes up again; its neighbours are stand-ins, the proxy is the real
Caddy."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.stacks import Folder, engine, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


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


def behind_proxy(standin: str, image: str, **proxy: Any) -> dict[str, Any]:
    document = engine(standin, free_port())
    document["services"]["webui"] = neighbour(standin, 8080)
    ports = {"port": free_port(), "webui_port": free_port()}
    document["services"]["proxy"] = {"enabled": True, "image": image, **ports, **proxy}
    return document


def asks(url: str, context: ssl.SSLContext, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), context=context, timeout=10
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_behind_the_proxy(docker_folder: Folder, standin_image: str, proxy_image: str) -> None:
    """Both services at every address, and again after a `down`, with the key and the CA of before."""
    docker_folder.write(behind_proxy(standin_image, proxy_image))
    kept = set()
    for _ in range(2):
        urls = docker_folder.ok("up", "--json").json["urls"]
        assert urls["proxy"].startswith("https://localhost:")
        key = (docker_folder.state / "secrets" / "proxy_key").read_text().strip()
        # The local CA's certificate is in the data folder, where root put it.
        root = docker_folder.ok("exec", "proxy", "cat", "/data/caddy/pki/authorities/local/root.crt").out
        kept.add((key, root))
        context = ssl.create_default_context(cadata=root)
        for host in ("localhost", "127.0.0.1"):
            apis, webui = (urls[name].replace("localhost", host) for name in ("proxy", "webui_proxy"))
            assert asks(f"{apis}/api/version", context, key) == 200
            assert asks(f"{apis}/api/version", context, "wrong") == 401
            assert asks(f"{webui}/health", context) == 200
        docker_folder.ok("down")
    assert len(kept) == 1


def test_the_proxy_with_certificates_of_yours(
    docker_folder: Folder, standin_image: str, proxy_image: str, tmp_path: Path
) -> None:
    """The server's from your files, the clients' by your CA: nobody else gets to the engine or the page."""
    authority, clients = trustme.CA(), trustme.CA()
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    for path in tmp_path.glob("*.pem"):
        path.chmod(0o644)  # the container's user reads them
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    wanted = {"tls": tls, "auth": "mtls", "client_ca": str(tmp_path / "clients.pem")}
    docker_folder.write(behind_proxy(standin_image, proxy_image, **wanted))
    stranger, known = ssl.create_default_context(), ssl.create_default_context()
    for context in (stranger, known):
        authority.configure_trust(context)
    clients.issue_cert("friend@example.org").configure_cert(known)
    for _ in range(2):
        urls = docker_folder.ok("up", "--json").json["urls"]
        for url in (f"{urls['proxy']}/api/version", f"{urls['webui_proxy']}/health"):
            assert asks(url, known) == 200
            with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
                asks(url, stranger)
        docker_folder.ok("down")
