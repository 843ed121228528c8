"""The `models:` section of stack.yaml: the models this host shall have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from stackctl.config.section import Section

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

REGISTRY, NAMESPACE = "registry.ollama.ai", "library"


class WantedModel(Section):
    """A model by name; a bare string is the name."""

    name: str = Field(min_length=1)
    digest: str | None = Field(
        None, pattern=r"^(sha256:)?[0-9a-f]{64}$", description="pin: what the name must be, all 64 digits"
    )
    resident: bool = Field(False, description="keep it loaded")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core)]}

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | WantedModel):
            raise ValueError(f"must be a name or {{name: …}}, not {value!r}")
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _no_digest(cls, value: str) -> str:
        if "@" in value:
            raise ValueError(f"{value!r} has a digest in its name: write name: and digest: apart")
        return value

    @property
    def full_name(self) -> str:
        return full_name(self.name)

    @property
    def pinned_name(self) -> str:
        """What is pulled: the registry and the engine hold it to the digest, if there is one."""
        return (
            f"{self.full_name}@sha256:{self.digest.removeprefix('sha256:')}"
            if self.digest
            else self.full_name
        )


def full_name(name: str) -> str:
    """As the engine lists it: with its tag, without a registry and namespace that go without saying."""
    parts = name.split("/")
    if len(parts) == 3 and parts[0].casefold() == REGISTRY:
        del parts[0]
    if len(parts) == 2 and parts[0].casefold() == NAMESPACE:
        del parts[0]
    tag = "" if ":" in parts[-1] else ":latest"
    return "/".join(parts) + tag


def same_model(name: str) -> str:
    """Equal for two names exactly if they mean one model: upper and lower case do not matter, nor does the
    way to its registry."""
    return full_name(name.rpartition("://")[2]).casefold()
