"""What every service has: image, port, limits, environment, mounts, secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from stackctl.config.durations import Duration
from stackctl.config.section import HostPath, Port, Section, SizeLimit, unwritten

SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Limits(Section):
    memory: SizeLimit | None = Field(
        None,
        description="such as 48g; the service is killed beyond it; none or 0 is no limit; default: the "
        "host's memory less a reserve of a tenth (2 GiB at least)",
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
    limits: Limits = unwritten()
    environment: dict[str, str] = Field({}, description="added to, and stronger than, what stackctl sets")
    volumes: tuple[Mount, ...] = Field((), description="more folders of the host")
    secrets: tuple[SecretName, ...] = Field((), description="secrets given as files /run/secrets/NAME")
    start_grace: Duration = Field(60.0, gt=0, description="time to become healthy after a start")
    stable_for: Duration = Field(
        12.0,
        ge=0,
        description="time that it must run without ending before `up` believes it; five times as long where "
        "it was restarted before",
    )
    healthcheck: tuple[str, ...] | None = Field(
        None, min_length=1, description="command that proves health; default: what the image is known to have"
    )

    @field_validator("limits", mode="before")
    @classmethod
    def _over_the_defaults(cls, value: object) -> object:
        """To write one limit does not take the others away that this service has."""
        default = cls.model_fields["limits"].default
        return {**default, **value} if isinstance(value, dict) and isinstance(default, dict) else value

    @property
    def ports(self) -> tuple[int, ...]:
        """All that are published on the host."""
        return (self.port,)

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
