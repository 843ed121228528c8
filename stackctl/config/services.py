"""The `services:` section of stack.yaml: each service's image, port, limits, environment and mounts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stackctl import __version__
from stackctl.config.durations import Duration
from stackctl.config.section import HostPath, Port, Section, Size

SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Limits(Section):
    memory: Size | None = Field(
        None, description="such as 48g; the service is killed beyond it; default: no limit"
    )
    cpus: float | None = Field(None, gt=0, description="such as 2.5; default: all")
    pids: int = Field(4096, ge=16, description="processes and threads")


class Mount(Section):
    """A folder or file of the host, shown to the service. It must exist: it is never made silently."""

    source: HostPath
    target: str = Field(pattern=r"^/")
    read_only: bool = True


class Service(Section):
    """What every service has."""

    enabled: bool = False
    image: str = Field(min_length=1)
    port: Port
    limits: Limits = Limits()
    environment: dict[str, str] = Field({}, description="added to, and stronger than, what stackctl sets")
    volumes: tuple[Mount, ...] = Field((), description="more folders of the host")
    secrets: tuple[SecretName, ...] = Field((), description="secrets given as files /run/secrets/NAME")
    start_grace: Duration = Field(60.0, gt=0, description="time to become healthy after a start")
    healthcheck: tuple[str, ...] | None = Field(
        None, min_length=1, description="command that proves health; default: what the image is known to have"
    )

    @field_validator("environment", mode="before")
    @classmethod
    def _strings(cls, value: object) -> object:
        if isinstance(value, dict):
            return {
                key: str(item).lower()
                if isinstance(item, bool)
                else str(item)
                if isinstance(item, int | float)
                else item
                for key, item in value.items()
            }
        return value


class EngineService(Service):
    """The model server: Ollama's, OpenAI's and Anthropic's APIs."""

    enabled: bool = True
    image: str = Field(f"llm-engine:{__version__}", min_length=1)
    port: Port = 11434
    start_grace: Duration = Field(120.0, gt=0)
    models_dir: HostPath | None = Field(
        None, description="the model store, such as an Ollama folder you have; default: models in data_dir"
    )


class WebuiService(Service):
    """Open WebUI, unmodified, set up to talk to the engine and to nothing else."""

    image: str = Field("stackctl-webui:0.12.4", min_length=1)
    port: Port = 3000
    limits: Limits = Limits(memory=1 << 30)
    start_grace: Duration = Field(900.0, gt=0, description="long: the first start builds the database")
    admin_email: str = Field("admin@localhost.localdomain", pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    origin: str | None = Field(
        None, pattern=r"^https?://", description="address in the browser; default: loopback"
    )
    embedding_model: str | None = Field(
        None, description="engine model for documents; default: no document search"
    )
    context_length: int = Field(16384, ge=512, description="context asked for in each chat")


class ComfyuiService(Service):
    """ComfyUI beside the engine. Both see the same GPU: leave it room with the engine's limits."""

    image: str = Field("comfyui:latest", min_length=1)
    port: Port = 8188
    start_grace: Duration = Field(300.0, gt=0)


class Certificate(Section):
    certificate: HostPath
    key: HostPath


class ProxyService(Service):
    """Caddy in front: TLS, and keys or client certificates."""

    image: str = Field("stackctl-proxy:2", min_length=1)
    port: Port = 8443
    limits: Limits = Limits(memory=256 << 20, pids=256)
    webui_port: Port = Field(8444, description="where the web UI is, if it is enabled; `port` has the APIs")
    hostnames: tuple[str, ...] = Field(
        ("localhost",), min_length=1, description="names the certificate is for"
    )
    tls: Literal["internal"] | Certificate = Field(
        "internal", description="a local CA of its own, or your files"
    )
    auth: Literal["key", "mtls"] = Field(
        "key", description="what a client must show: a bearer key, or a certificate"
    )
    client_ca: HostPath | None = Field(None, description="PEM of the CA whose client certificates are let in")

    @model_validator(mode="after")
    def _mtls_has_ca(self) -> ProxyService:
        if (self.auth == "mtls") != (self.client_ca is not None):
            raise ValueError("auth: mtls and client_ca go together")
        return self


class Services(Section):
    engine: EngineService = EngineService()
    webui: WebuiService = WebuiService()
    comfyui: ComfyuiService = ComfyuiService()
    proxy: ProxyService = ProxyService()

    def enabled(self) -> dict[str, Service]:
        """The services that are switched on, in the order in which they start."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: service for name, service in pairs if service.enabled}

    @model_validator(mode="after")
    def _ports_differ(self) -> Services:
        seen: dict[int, str] = {}
        for name, service in self.enabled().items():
            if other := seen.get(service.port):
                raise ValueError(f"{other} and {name} both have port {service.port}")
            seen[service.port] = name
        return self
