"""The `services:` section of stack.yaml: each service's image, port, limits, environment and mounts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stackctl import __version__
from stackctl.config.durations import Duration
from stackctl.config.monitoring import GrafanaService, PrometheusService
from stackctl.config.section import HostPath, Port, Section, Size, unwritten
from stackctl.config.service import Limits, Service
from stackctl.config.urls import Origins, ServerName


class EngineService(Service):
    """The model server: Ollama's, OpenAI's and Anthropic's APIs."""

    enabled: bool = True
    image: str = Field(f"llm-engine:{__version__}", min_length=1)
    port: Port = 11434
    start_grace: Duration = Field(120.0, gt=0)
    models_dir: HostPath | None = Field(
        None, description="the model store, such as an Ollama folder you have; default: models in data_dir"
    )

    @model_validator(mode="after")
    def _is_open_inside(self) -> EngineService:
        """Health checks, the web UI and `models` have no key to show: the proxy asks for keys instead."""
        for name in ("LLM_ENGINE_KEYS_FILE", "LLM_ENGINE_TLS_CERT", "LLM_ENGINE_TLS_KEY"):
            if name in self.environment:
                raise ValueError(f"{name} would lock out the stack's own services: use services.proxy")
        return self


class WebuiService(Service):
    """Open WebUI, unmodified, set up to talk to the engine and to nothing else."""

    image: str = Field("stackctl-webui:0.12.4", min_length=1)
    port: Port = 3000
    limits: Limits = unwritten(memory=1 << 30)
    start_grace: Duration = Field(900.0, gt=0, description="long: the first start builds the database")
    admin_email: str = Field("admin@localhost.localdomain", pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    origin: Origins = Field(
        (),
        description="addresses in the browser, one or a list; at others the live channel is refused; "
        "default: loopback and localhost, and the proxy's names",
    )
    embedding_model: str | None = Field(
        None, description="engine model for documents; default: no document search"
    )
    context_length: int = Field(16384, ge=512, description="context asked for in each chat")


class ComfyuiService(Service):
    """ComfyUI beside the engine. Both see the same GPU, whose memory nothing divides between them."""

    image: str = Field("comfyui:latest", min_length=1)
    port: Port = 8188
    start_grace: Duration = Field(300.0, gt=0)
    gpu_memory: Size | None = Field(
        None,
        description="such as 8g: what the engine leaves free of each GPU for it; default: nothing, who loads "
        "first has the memory",
    )


class Certificate(Section):
    certificate: HostPath
    key: HostPath


class ProxyService(Service):
    """Caddy in front: TLS, and keys or client certificates."""

    image: str = Field("stackctl-proxy:2", min_length=1)
    port: Port = 8443
    limits: Limits = unwritten(memory=256 << 20, pids=256)
    webui_port: Port = Field(8444, description="where the web UI is, if it is enabled; `port` has the APIs")
    hostnames: tuple[ServerName, ...] = Field(
        ("localhost", "127.0.0.1"),
        min_length=1,
        description="names and addresses it answers to, and a certificate is for; the first one is shown",
    )
    tls: Literal["internal"] | Certificate = Field(
        "internal", description="a local CA of its own, or your files"
    )
    auth: Literal["key", "mtls"] = Field(
        "key", description="what a client must show: a bearer key, or a certificate"
    )
    client_ca: HostPath | None = Field(None, description="PEM of the CA whose client certificates are let in")

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self.webui_port)

    @property
    def hostname(self) -> str:
        """One that a browser can be given."""
        return next(
            (name for name in self.hostnames if "*" not in name), self.hostnames[0].replace("*", "any")
        )

    @model_validator(mode="after")
    def _mtls_has_ca(self) -> ProxyService:
        if (self.auth == "mtls") != (self.client_ca is not None):
            raise ValueError("auth: mtls and client_ca go together")
        return self


class Services(Section):
    engine: EngineService = unwritten()
    webui: WebuiService = unwritten()
    comfyui: ComfyuiService = unwritten()
    proxy: ProxyService = unwritten()
    prometheus: PrometheusService = unwritten()
    grafana: GrafanaService = unwritten()

    def enabled(self) -> dict[str, Service]:
        """The services that are switched on, in the order in which they start."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: service for name, service in pairs if service.enabled}

    def ports_of(self, name: str) -> tuple[int, ...]:
        """The host's ports that a service takes: the proxy has one for the web UI only where there is one."""
        service: Service = getattr(self, name)
        return (service.port,) if name == "proxy" and not self.webui.enabled else service.ports

    @model_validator(mode="after")
    def _engine_is_there(self) -> Services:
        for name in ("webui", "proxy"):
            if getattr(self, name).enabled and not self.engine.enabled:
                raise ValueError(f"{name} is of no use without the engine: set {name}.enabled: false, too")
        return self

    @model_validator(mode="after")
    def _grafana_has_data(self) -> Services:
        if self.grafana.enabled and not self.prometheus.enabled:
            raise ValueError("grafana shows what prometheus keeps: set prometheus.enabled: true, too")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Services:
        seen: dict[int, str] = {}
        for name in self.enabled():
            for port in self.ports_of(name):
                if other := seen.get(port):
                    raise ValueError(f"{other} and {name} both have port {port}")
                seen[port] = name
        return self
