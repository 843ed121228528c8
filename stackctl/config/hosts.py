"""Hosts that are reached over SSH: the `hosts:` section of stack.yaml, and ~/.config/stackctl/hosts.yaml.

Everything has a default, because any ssh destination works without an entry.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from stackctl.config.durations import Duration
from stackctl.config.section import HostPath, Port, Section

ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class ForwardConfig(Section):
    """One service of the host, on a port of this machine."""

    local: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="port on 127.0.0.1 here; 0 takes a free one"
    )
    remote: Port | None = Field(None, description="port on the host; default: the service's usual one")
    host: str = Field("127.0.0.1", description="address as seen from the host")


def _port_alone(value: Any) -> Any:
    return {"local": value} if isinstance(value, int) else value


Forwarded = Annotated[ForwardConfig, BeforeValidator(_port_alone, json_schema_input_type=int | ForwardConfig)]


class HostConfig(Section):
    """A host, and how it is reached."""

    ssh: str | None = Field(
        None, description="destination as for ssh: alias, user@host:port; default: the entry's name"
    )
    ssh_config: HostPath | None = Field(None, description="another file than ~/.ssh/config (ssh -F)")
    transport: Literal["auto", "paramiko", "openssh"] = Field(
        "auto", description="auto is paramiko unless ssh's configuration asks for what only ssh can do"
    )
    forward: dict[ServiceName, Forwarded] = Field(
        {}, description="service: local port; default: the services that run there, on the same ports"
    )
    interval: Duration = Field(
        15.0, gt=0, le=300, description="silence after which the host is asked whether it lives"
    )
    hold: Duration = Field(
        0.0, ge=0, le=60, description="how long new connections wait for a reconnect; 0 resets them"
    )
    stack_file: str | None = Field(None, description="stack.yaml on that host, for `stackctl --host`")
    stackctl: str = Field("stackctl", description="the program on that host, for `stackctl --host`")

    @field_validator("ssh")
    @classmethod
    def _plain_destination(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError(f"'{value}' begins with '-', which ssh would read as an option")
        return value

    @field_validator("stackctl")
    @classmethod
    def _plain_program(cls, value: str) -> str:
        if not value or any(character in value for character in " '\"$`;&|<>\n"):
            raise ValueError(f"'{value}' is not the path of a program")
        return value
