"""The real engine and the real Open WebUI: from `up` to a chat in the browser's own way, and down again."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from stackctl.config.services import WebuiService
from tests.support.stacks import Folder, free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def asks(url: str, body: dict[str, Any] | None = None, token: str | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def channel(address: str, origin: str, context: ssl.SSLContext | None = None) -> int:
    """What the live channel answers to a page that was loaded from `origin`; without it no chat streams."""
    headers = {"Origin": origin, "Upgrade": "websocket", "Connection": "Upgrade"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    place = address.partition("://")[2]
    connection = (
        http.client.HTTPSConnection(place, context=context, timeout=30)
        if context
        else http.client.HTTPConnection(place, timeout=30)
    )
    try:
        connection.request("GET", "/ws/socket.io/?EIO=4&transport=websocket", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_chat_through_open_webui(
    docker_folder: Folder, engine_image: str, webui_image: str, proxy_image: str
) -> None:
    port = free_port()
    services = {
        "engine": {"image": engine_image, "port": free_port()},
        "webui": {"enabled": True, "image": webui_image, "port": port},
        "proxy": {"enabled": True, "image": proxy_image, "port": free_port(), "webui_port": free_port()},
    }
    docker_folder.write({"runtime": "docker", "gpu": {"mode": "none"}, "services": services})
    up = docker_folder.run("up", "--json", timeout=500)
    assert up.code == 0, up.err
    base = f"http://127.0.0.1:{port}"
    assert asks(f"{base}/health")[0] == 200

    # At every address of the stack a page may stream, and from another port of this host it may not.
    assert channel(base, base) == channel(base, f"http://localhost:{port}") == 101
    assert channel(base, "http://127.0.0.1:1") == 403
    root = docker_folder.ok("exec", "proxy", "cat", "/data/caddy/pki/authorities/local/root.crt").out
    front, trusted = up.json["urls"]["webui_proxy"], ssl.create_default_context(cadata=root)
    for address in (front, front.replace("localhost", "127.0.0.1")):
        assert channel(address, address, trusted) == 101

    stranger = {"name": "Mallory", "email": "mallory@example.com", "password": "Long-enough-1"}
    assert asks(f"{base}/api/v1/auths/signup", stranger)[0] == 403
    email = WebuiService().admin_email
    assert asks(f"{base}/api/v1/auths/signin", {"email": email, "password": "not-it"})[0] == 400
    secrets = {path.name: path.read_text().strip() for path in (docker_folder.state / "secrets").iterdir()}
    login = {"email": email, "password": secrets["webui_admin_password"]}
    status, text = asks(f"{base}/api/v1/auths/signin", login)
    assert status == 200, text
    admin = json.loads(text)
    assert admin["role"] == "admin"

    chat = {"model": "demo:latest", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
    assert asks(f"{base}/ollama/api/chat", chat)[0] in (401, 403)
    status, text = asks(f"{base}/ollama/api/chat", chat, admin["token"])
    assert status == 200, text
    # The engine may stream to the proxy: what was said is the sum of the lines.
    said = "".join(json.loads(line)["message"]["content"] for line in text.splitlines() if line.strip())
    assert len(said) > 10

    containers = [one["id"] for one in docker_folder.ok("status", "--json").json["services"]]
    inspected = subprocess.run(
        ["docker", "inspect", *containers], capture_output=True, text=True, check=True
    ).stdout
    assert secrets and not [name for name, value in secrets.items() if value in inspected]
    docker_folder.ok("down")
    assert docker_folder.ok("status", "--json").json["services"] == []
