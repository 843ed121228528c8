"""The whole of stack.yaml as one frozen, validated model.

To add a section: write its model in a module of this folder, and add one line here. The loader, `config show
--origin`, the JSON Schema, the sample file and the reference page all follow from the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stackctl import paths
from stackctl.config.backup import BackupConfig
from stackctl.config.gpu import GpuConfig
from stackctl.config.health import HealthConfig
from stackctl.config.hosts import HostConfig
from stackctl.config.models import WantedModel, same_model
from stackctl.config.notify import NotifyConfig
from stackctl.config.section import HostPath, Section, unwritten
from stackctl.config.services import Services
from stackctl.config.upgrade import UpgradeConfig

HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
StackName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class StackConfig(Section):
    name: StackName = Field("ai", description="prefix of everything that belongs to this stack")
    runtime: Literal["auto", "docker", "local"] = Field(
        "auto",
        description="docker runs containers, local runs processes; auto is docker where an engine answers",
    )
    data_dir: HostPath | None = Field(
        None, description="models and databases; default: the user's data folder"
    )
    data_mount: HostPath | None = Field(
        None, description="file system that must be mounted before data_dir is touched, such as /mnt/nvme"
    )
    gpu: GpuConfig = unwritten()
    expose: Literal["loopback", "lan"] = Field(
        "loopback", description="lan publishes on every address of this host: only with something in front"
    )
    services: Services = unwritten()
    models: tuple[WantedModel, ...] = Field((), description="what `stackctl models sync` makes true")
    hosts: dict[HostName, HostConfig] = Field({}, description="other hosts, reached over SSH")
    health: HealthConfig = unwritten()
    notify: NotifyConfig = unwritten()
    upgrade: UpgradeConfig = unwritten()
    backup: BackupConfig = unwritten()

    @field_validator("models")
    @classmethod
    def _unique_models(cls, value: tuple[WantedModel, ...]) -> tuple[WantedModel, ...]:
        names = [same_model(model.name) for model in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"'{twice[0]}' is listed twice")
        return value

    @property
    def data_path(self) -> Path:
        return self.data_dir or paths.data_dir(self.name)

    @property
    def state_path(self) -> Path:
        return paths.state_dir(self.name)

    @property
    def bind_address(self) -> str:
        """The host address that ports are published on."""
        return "0.0.0.0" if self.expose == "lan" else "127.0.0.1"

    def url(self, service: str) -> str:
        """Where a service answers, as seen from this host; the proxy answers to its names alone."""
        found = getattr(self.services, service)
        if service == "proxy":
            return f"https://{found.hostname}:{found.port}"
        return f"http://127.0.0.1:{found.port}"

    def urls(self) -> dict[str, str]:
        """Where all of them answer; the web UI has a second address where the proxy is in front of it."""
        found = {name: self.url(name) for name in self.services.enabled()}
        for port in self.services.ports_of("proxy")[1:] if "proxy" in found else ():
            found["webui_proxy"] = f"https://{self.services.proxy.hostname}:{port}"
        return found
