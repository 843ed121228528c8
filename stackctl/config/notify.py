"""The `notify:` section of stack.yaml: the channels that carry confirmed changes of health to people."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stackctl.config.durations import Duration
from stackctl.config.section import Section, unwritten
from stackctl.config.urls import Headers, HttpUrl

Severity = Literal["warning", "critical"]


class Channel(Section):
    name: str | None = Field(None, description="shown in logs; default: its type")
    min_severity: Severity = Field("warning", description="the mildest failure this channel carries")
    timeout: Duration = Field(10.0, gt=0, le=60)

    @property
    def label(self) -> str:
        return self.name or str(getattr(self, "type", "channel"))


class CommandChannel(Channel):
    """Runs a program; the message is in STACKCTL_* variables and, as JSON, on its standard input."""

    type: Literal["command"]
    argv: tuple[str, ...] = Field(min_length=1)


class WebhookChannel(Channel):
    """Sends JSON to a URL; `{placeholders}` in the strings of `body` are filled in."""

    type: Literal["webhook"]
    url: HttpUrl
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: Headers = Field({})
    body: dict[str, Any] | list[Any] | str | None = Field(None, description="default: the whole message")


class NtfyChannel(Channel):
    type: Literal["ntfy"]
    url: HttpUrl = "https://ntfy.sh"
    topic: str = Field(pattern=r"^[-_A-Za-z0-9]{1,64}$")
    token_file: str | None = None


class SmtpChannel(Channel):
    type: Literal["smtp"]
    host: str
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: str | None = None
    ca_file: str | None = Field(
        None, description="CA that signed the server's certificate; default: the system's"
    )
    sender: str = Field(alias="from")
    to: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _login_is_whole(self) -> SmtpChannel:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


AnyChannel = Annotated[
    CommandChannel | WebhookChannel | NtfyChannel | SmtpChannel, Field(discriminator="type")
]


class RateLimit(Section):
    """At most `messages` per `per`, for all channels together; what is held back comes as one digest."""

    messages: int = Field(6, ge=1)
    per: Duration = Field(3600.0, gt=0)


class NotifyConfig(Section):
    channels: tuple[AnyChannel, ...] = ()
    rate_limit: RateLimit = unwritten()
    include_output: bool = Field(
        False, description="add the details of a check, which can quote logs and paths"
    )
