"""One registry, over HTTP: addresses, authentication, redirects, and errors in words.

A redirect to another host never takes the token along. Each request is tried once with what is known and once
more after a 401 has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from yarl import URL

from llm_engine import OLLAMA_VERSION, __version__
from llm_engine.models.errors import RegistryError
from llm_engine.models.manifests import MANIFEST_TYPE, MAX_MANIFEST, OCI_MANIFEST_TYPE
from llm_engine.models.names import Name
from llm_engine.models.registry.challenge import Challenge
from llm_engine.models.registry.credentials import Credential, Credentials
from llm_engine.models.registry.identity import Identity

# Here and beside it aiohttp is imported where it is used: that takes a quarter of a server's start, and most
# servers start without a pull.
if TYPE_CHECKING:
    import aiohttp

# Ollama's registry decides by this header whether a client understands a model; we understand what that
# version does.
USER_AGENT = f"ollama/{OLLAMA_VERSION} ({platform.machine()} linux) llm-engine/{__version__}"
CONNECT_TIMEOUT = 30
MAX_REDIRECTS = 5
READ_BUFFER = 128 * 1024
# Of one of eight connections: enough for 80 MB/s in all at 50 ms from the registry.
RECEIVE_BUFFER = 256 * 1024
LONGEST_WAIT = 60.0
RETRYABLE = (408, 425, 429, 500, 502, 503, 504)


def new_session() -> aiohttp.ClientSession:
    """A session for all registries; proxies come from the environment."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
    return aiohttp.ClientSession(
        timeout=timeout,
        trust_env=True,
        connector=aiohttp.TCPConnector(
            limit=0, ssl=ssl.create_default_context(), socket_factory=_small_buffers
        ),
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


def _small_buffers(address: Any) -> socket.socket:
    """What waits in buffers is lost when the process is killed; so little waits there."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


def transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    import aiohttp

    if isinstance(error, RegistryError):
        return error.retryable
    if isinstance(error, aiohttp.ClientSSLError):
        return False  # a certificate does not become better
    return isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError))


@dataclass
class Registry:
    """The repository of one model name."""

    session: aiohttp.ClientSession
    name: Name
    insecure: bool = False
    credentials: Credentials = field(default_factory=Credentials)
    authorization: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where blobs are that the registry itself does not give."""

    @property
    def base(self) -> str:
        if self.name.scheme == "http" and not self.insecure:
            raise RegistryError(
                "insecure protocol http", fix="add --insecure if you trust the network to this registry"
            )
        scheme = self.name.scheme or ("http" if self.insecure else "https")
        if scheme not in ("http", "https"):
            raise RegistryError(f"unsupported protocol {scheme}")
        return f"{scheme}://{self.name.host}/v2/{self.name.namespace}/{self.name.model}/"

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        stall: float | None = 30,
        follow: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request to the registry, `url` relative to the repository or absolute. Statuses are not
        judged."""
        full = urljoin(self.base, url)
        for attempt in (1, 2):
            sent = dict(headers or {})
            if self.authorization and self._same_host(full):
                sent["Authorization"] = self.authorization
            async with self._send(method, full, sent, data, stall, follow) as response:
                if response.status != 401 or attempt == 2 or not self._same_host(full):
                    yield response
                    return
                header = response.headers.get("WWW-Authenticate", "")
            await self._authenticate(header)
            if data is not None and not isinstance(data, (bytes, str)):
                raise RegistryError("authorization expired", http_status=401, retryable=True)

    def _send(
        self, method: str, url: str, headers: dict[str, str], data: Any, stall: float | None, follow: bool
    ) -> Any:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=stall)
        # With `insecure`, https goes unverified: registries of a private network have certificates of their
        # own.
        verify = not self.insecure
        # Signatures, the registry's and a storage's, are over the address as it was written.
        exact = URL(url, encoded=True)
        return self.session.request(
            method, exact, headers=headers, data=data, timeout=timeout, ssl=verify, allow_redirects=follow
        )

    def _same_host(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.base)[:2]

    async def _authenticate(self, header: str) -> None:
        if not header:
            raise RegistryError("unauthorized: the registry does not say how to log in", http_status=401)
        challenge = Challenge.parse(header)
        credential = await asyncio.to_thread(self.credentials.get, self.name.host)
        if challenge.scheme == "basic":
            if credential is None:
                raise self._unauthorized()
            self.authorization = credential.basic
            return
        challenge.check_realm(insecure=self.insecure)
        attempts: list[tuple[str, dict[str, str]]] = []
        if credential is not None:
            self._check_token_server(challenge, credential)
            attempts.append((challenge.token_url(), {"Authorization": credential.basic}))
        else:
            identity = await asyncio.to_thread(Identity.load)
            signed = challenge.signed(identity, self.name.host)
            if signed:
                attempts.append((signed[0], {"Authorization": signed[1]}))
            attempts.append((challenge.token_url(), {}))
        for url, headers in attempts:
            async with self._send("GET", url, headers, None, 30, False) as response:
                if response.status == 200:
                    self.authorization = "Bearer " + _token(await response.read())
                    return
        raise self._unauthorized()

    def _check_token_server(self, challenge: Challenge, credential: Credential) -> None:
        if challenge.may_know_password(self.name.host, credential.token_server):
            return
        server = urlsplit(challenge.realm).hostname
        raise RegistryError(
            f"{self.name.host} wants its password sent to {server}, which was not named at login",
            http_status=401,
            fix=f"llm-engine login {self.name.host} --token-server {server}",
        )

    def _unauthorized(self) -> RegistryError:
        return RegistryError(
            f"unauthorized: {self.name.host} refuses access to {self.name.namespace}/{self.name.model}",
            http_status=401,
            fix=f"llm-engine login {self.name.host}",
        )

    # -- what a pull asks ----------------------------------------------------------------------------------

    async def manifest(self) -> bytes:
        """The manifest's own bytes. RegistryError in the words that Ollama's clients know."""
        accept = f"{MANIFEST_TYPE}, {OCI_MANIFEST_TYPE}"
        reference = self.name.pin or self.name.tag
        async with self.request(
            "GET", f"manifests/{reference}", headers={"Accept": accept}, follow=True
        ) as response:
            if response.status == 404:
                raise RegistryError("file does not exist", http_status=404)
            await raise_for(response)
            return await response.content.read(MAX_MANIFEST + 1)

    async def direct_url(self, digest: str, stall: float = 30) -> str:
        """Where the bytes of a blob are: at the registry, or where it sends us."""
        url = self.addresses.get(digest) or urljoin(self.base, f"blobs/{digest}")
        for _ in range(MAX_REDIRECTS):
            # One byte is asked for: a registry that answers by itself must not start to send a model.
            async with self.request("GET", url, headers={"Range": "bytes=0-0"}, stall=stall) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    if response.status not in (200, 206, 416):
                        await raise_for(response)
                    return url
                target = response.headers.get("Location", "")
                if not target:
                    raise RegistryError(f"the registry redirects {digest} to nowhere")
                url = urljoin(url, target)
            if not self._same_host(url):
                return url
        raise RegistryError(f"more than {MAX_REDIRECTS} redirects for {digest}")


def _token(raw: bytes) -> str:
    try:
        document = json.loads(raw)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not token:
        raise RegistryError("the registry's token server gave no token")
    return token


async def raise_for(response: aiohttp.ClientResponse) -> None:
    """RegistryError for a status that is no success: `<code>: <what the registry says>`."""
    if response.status < 400:
        if response.status >= 300:
            raise RegistryError(f"{response.status}: unexpected redirect", http_status=response.status)
        return
    text = (await response.content.read(4096)).decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        errors = json.loads(text)["errors"]
        text = (
            "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors) or text
        )
    raise RegistryError(
        f"{response.status}: {text or response.reason}",
        http_status=response.status,
        retryable=response.status in RETRYABLE,
        retry_after=retry_after(response),
    )


def retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that the registry wants us to wait, within reason."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else 0.0
