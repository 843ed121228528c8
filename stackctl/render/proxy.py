"""The Caddyfile: TLS in front of the stack, and nobody reaches the APIs without a key or a client
certificate.

Answers are streamed through unbuffered. The web UI has a port of its own, because its paths and the engine's
are alike (`/api/...`); it brings its own logins, so the key is asked for on the API port only.
"""

from __future__ import annotations

import ipaddress

from stackctl.config import StackConfig
from stackctl.config.services import Certificate

KEY_SECRET = "proxy_key"
HEALTH_PORT = 8079  # inside the container, on its loopback


def secrets(config: StackConfig) -> list[str]:
    return [KEY_SECRET] if config.services.proxy.auth == "key" else []


def caddyfile(config: StackConfig, *, local: bool) -> str:
    service = config.services.proxy
    engine = f"127.0.0.1:{config.services.engine.port}" if local else "engine:11434"
    lines = ["{", "\tadmin off", "\tauto_https disable_redirects", "\tskip_install_trust"]
    # To an address a client names nobody, and what it connected to is, in a container, the container's own.
    lines += [f"\tdefault_sni {name}" for name in service.hostnames if _is_address(name)][:1]
    lines += ["}", ""]
    if not local:
        lines += [f"http://127.0.0.1:{HEALTH_PORT} {{", "\tbind 127.0.0.1", "\trespond ok", "}", ""]
    key = _key_gate() if service.auth == "key" else []
    lines += _site(config, service.port, [*key, *_upstream(engine)], local)
    if config.services.webui.enabled:
        webui = f"127.0.0.1:{config.services.webui.port}" if local else "webui:8080"
        lines += _site(config, service.webui_port, _upstream(webui), local)
    return "\n".join(lines)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _site(config: StackConfig, port: int, body: list[str], local: bool) -> list[str]:
    names = ", ".join(f"https://{name}:{port}" for name in config.services.proxy.hostnames)
    bind = config.bind_address if local else "0.0.0.0"
    inner = [f"bind {bind}", *_tls(config, local), *body]
    return [f"{names} {{", *(f"\t{line}" for line in inner), "}", ""]


def _tls(config: StackConfig, local: bool) -> list[str]:
    service = config.services.proxy
    how = " internal"
    if isinstance(service.tls, Certificate):
        names = (service.tls.certificate, service.tls.key) if local else ("/tls/cert.pem", "/tls/key.pem")
        how = " " + " ".join(f'"{name}"' for name in names)
    if service.client_ca is None:
        return [f"tls{how}"]
    ca = service.client_ca if local else "/tls/client-ca.pem"
    return [
        f"tls{how} {{",
        "\tclient_auth {",
        "\t\tmode require_and_verify",
        f'\t\ttrusted_ca_cert_file "{ca}"',
        "\t}",
        "}",
    ]


def _key_gate() -> list[str]:
    key = "{$STACKCTL_PROXY_KEY}"
    return [
        "@stranger {",
        f'\tnot header Authorization "Bearer {key}"',
        f'\tnot header X-Api-Key "{key}"',
        "}",
        "handle @stranger {",
        '\theader WWW-Authenticate "Bearer"',
        '\theader Content-Type "application/json"',
        '\trespond `{"error":"a key is needed: send it as Authorization: Bearer"}` 401',
        "}",
    ]


def _upstream(address: str) -> list[str]:
    return [
        "handle {",
        f"\treverse_proxy {address} {{",
        "\t\tflush_interval -1",
        "\t}",
        "}",
    ]
