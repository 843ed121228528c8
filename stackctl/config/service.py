"""What every service has: image, port, limits, environment, mounts, secrets."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, field_validator

from stackctl.config.durations import Duration
from stackctl.config.section import HostPath, Port, Section, SizeLimit, unwritten

Values = TypeVar("Values", bound=tuple[Any, ...])
SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


EnvironmentText = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int | float | bool)]


def _once(value: Values, names: Sequence[str]) -> Values:
    """Compose would refuse the whole file, or the last one would win silently."""
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise ValueError(f"'{twice}' is listed twice")
    return value


class Limits(Section):
    memory: SizeLimit | None = Field(
        None,
        description="such as 48g; the service is killed beyond it; none or 0 is no limit; default: what "
        "a reserve of a tenth of the host (2 GiB at least) and the other limits leave, in equal parts",
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
    environment: dict[str, EnvironmentText] = Field(
        {}, description="added to, and stronger than, what stackctl sets"
    )
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
        if not isinstance(value, dict) or not isinstance(default, dict):
            return value
        return default | {key: item for key, item in value.items() if item is not None}

    @field_validator("secrets")
    @classmethod
    def _secrets_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _once(value, value)

    @field_validator("volumes")
    @classmethod
    def _targets_once(cls, value: tuple[Mount, ...]) -> tuple[Mount, ...]:
        return _once(value, [posixpath.normpath(mount.target) for mount in value])

    @property
    def ports(self) -> tuple[int, ...]:
        """All that are published on the host."""
        return (self.port,)
