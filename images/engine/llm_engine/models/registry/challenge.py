"""Answering a registry's 401: which token to fetch from where, and with which proof.

Three kinds: Ollama's, whose token server takes a signature by the user's key; Docker's, whose token server
takes a name and a password, or nothing; and plain Basic authentication."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from llm_engine.models.errors import RegistryError
from llm_engine.models.registry.identity import Identity

_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@dataclass(frozen=True)
class Challenge:
    scheme: str
    """`bearer` or `basic`."""
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        scheme, _, rest = header.strip().partition(" ")
        found = {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(rest)}
        if scheme.lower() not in ("bearer", "basic"):
            raise RegistryError(f"the registry asks for {scheme!r} authentication, which is not supported")
        return cls(scheme.lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))

    def _query(self) -> list[tuple[str, str]]:
        query = [("service", self.service)] if self.service else []
        return query + [("scope", scope) for scope in self.scope.split()]

    def check_realm(self, *, insecure: bool) -> None:
        """Refuses a token server that is asked in clear text, where that was not allowed."""
        scheme = urlsplit(self.realm).scheme
        if scheme == "https" or (scheme == "http" and insecure):
            return
        raise RegistryError(
            f"the registry sends us to {self.realm[:200]!r} for a token, which is no https address",
            fix="add --insecure if you trust the network to this registry" if scheme == "http" else None,
        )

    def may_know_password(self, registry_host: str, token_server: str) -> bool:
        """Whether the password for a registry may go to its token server: one on the registry's own host,
        above or below it (registry.gitlab.com asks gitlab.com), or the one that was named at login.

        A registry that was taken over could name any host."""
        realm = urlsplit(self.realm).hostname or ""
        own = urlsplit(f"//{registry_host}").hostname or ""
        above = "." in realm and own.endswith(f".{realm}")
        docker = realm == "auth.docker.io" and f".{own}".endswith(".docker.io")
        return realm in (own, token_server.lower()) or above or realm.endswith(f".{own}") or docker

    def token_url(self) -> str:
        """Where a name and a password, or nothing at all, buy a token."""
        return _with_query(self.realm, urlencode(self._query(), quote_via=quote))

    def signed(self, identity: Identity, registry_host: str) -> tuple[str, str] | None:
        """The URL and the Authorization header of Ollama's way; None where signing is not for this realm.

        The signature could be used by whoever receives it, so it only goes to the registry's own host.
        """
        if urlsplit(self.realm).netloc != registry_host:
            return None
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        stamps = [("ts", str(int(time.time()))), ("nonce", nonce)]
        url = _with_query(self.realm, urlencode([*self._query(), *stamps], quote_via=quote))
        body = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        return url, identity.sign(f"GET,{url},{body}")


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}" if query else url
