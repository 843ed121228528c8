"""The `backup:` section of stack.yaml: where backups go, how long they stay, who can open the secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from stackctl.config.section import HostPath, Section, unwritten

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Keep(Section):
    """Which backups stay; each is kept when any rule wants it."""

    last: int = Field(7, ge=1)
    daily: int = Field(7, ge=0)
    weekly: int = Field(4, ge=0)
    monthly: int = Field(6, ge=0)


class BackupTarget(Section):
    """One place: a folder, an SFTP server, or a restic repository. A bare string is a folder."""

    path: HostPath | None = None
    sftp: str | None = Field(
        None, description="user@host:/folder or user@host:port:/folder; host key must be known"
    )
    mount: HostPath | None = Field(
        None, description="where the disk of the folder is mounted; nothing is written while it is not"
    )
    identity: HostPath | None = Field(None, description="private key for sftp; default: the agent and ~/.ssh")
    restic: str | None = Field(
        None, description="restic repository; needs restic on the PATH and password_file"
    )
    password_file: HostPath | None = Field(None, description="of the restic repository")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core)]}

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("sftp")
    @classmethod
    def _sftp_form(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"([^@:/\s]+@)?[^@:/\s-][^@:/\s]*(:\d+)?:/?\S+", value):
            raise ValueError(f"'{value}' is not user@host:/folder")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> BackupTarget:
        if sum(place is not None for place in (self.path, self.sftp, self.restic)) != 1:
            raise ValueError("a target is one of path, sftp and restic")
        if self.restic is not None and self.password_file is None:
            raise ValueError("a restic target needs password_file")
        if self.mount is not None and self.sftp is not None:
            raise ValueError("mount is for a folder of this host")
        return self


class BackupConfig(Section):
    to: tuple[BackupTarget, ...] = Field(
        (), description="places; default: backups/ in the stack's state folder"
    )
    keep: Keep = unwritten()
    passphrase_file: HostPath | None = Field(
        None, description="the secrets are encrypted with the text in it"
    )
    recipients: tuple[str, ...] = Field((), description="age public keys (age1...) that can open the secrets")
    consistency: Literal["database", "stop"] = Field(
        "database",
        description="database copies live through SQLite's backup API; stop stops the service meanwhile",
    )

    @field_validator("recipients")
    @classmethod
    def _age_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            if not re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", key):
                raise ValueError(f"'{key}' is not an age public key (age1...)")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> BackupConfig:
        if self.passphrase_file is not None and self.recipients:
            raise ValueError("give passphrase_file or recipients: age files cannot have both")
        return self
