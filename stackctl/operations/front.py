"""Does the proxy answer at the addresses that `up` prints: TLS for that name, the key, and what is behind it?

A proxy whose port is open may still refuse every browser, for the name in the certificate or for the service
behind. Asked at this host's own address with the name in front, so that no name server is needed; whether the
certificate is trusted is the browser's question.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time

from stackctl.config import StackConfig
from stackctl.errors import UnhealthyError
from stackctl.redact import Secret

WITHIN = 30.0
ENGINE_PATH = "/api/version"
# What a proxy says to somebody without a client certificate: it stands, and we have none to show.
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")


class _Named(http.client.HTTPSConnection):
    """To this host, in the name of another."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(name, port, timeout=timeout)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host.strip("[]"))


def proxy_answers(config: StackConfig, key: Secret | None, *, within: float = WITHIN) -> None:
    """UnhealthyError with the address and what it said; a certificate may still be on its way at first."""
    services = config.services
    ports = services.ports_of("proxy")
    behind = dict(zip(ports, ("engine", "webui"), strict=False))
    paths = {"engine": ENGINE_PATH, "webui": "/health"}
    ends = time.monotonic() + within
    for port in ports:
        url = f"https://{services.proxy.hostname}:{port}{paths[behind[port]]}"
        while (said := _why_not(config, key, port, paths[behind[port]])) is not None:
            if time.monotonic() > ends:
                raise UnhealthyError(
                    f"the proxy does not let through to {behind[port]} at {url}: {said}",
                    fix="stackctl logs proxy",
                )
            time.sleep(0.2)


def _why_not(config: StackConfig, key: Secret | None, port: int, path: str) -> str | None:
    proxy = config.services.proxy
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    connection = _Named(proxy.hostname, port, context, 10)
    try:
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
    except ssl.SSLError as error:
        wants = proxy.auth == "mtls" and any(word in str(error.reason) for word in _WANTS_CERTIFICATE)
        return None if wants else f"TLS: {error.reason or error}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    # What the web UI says to a stranger is its own affair, as long as it is not the proxy that says it.
    return None if status < 500 and (status == 200 or path != ENGINE_PATH) else f"status {status}"
