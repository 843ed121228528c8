"""The `models:` section of stack.yaml: the models this host shall have."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from stackctl.config.section import Section


class WantedModel(Section):
    """A model by name; a bare string is the name."""

    name: str = Field(min_length=1)
    digest: str | None = Field(
        None, pattern=r"^(sha256:)?[0-9a-f]{12,64}$", description="pin: what the name must be"
    )
    resident: bool = Field(False, description="keep it loaded")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | WantedModel):
            raise ValueError(f"must be a name or {{name: …}}, not {value!r}")
        return {"name": value} if isinstance(value, str) else value

    @property
    def full_name(self) -> str:
        """With its tag, as the engine lists it."""
        last = self.name.rsplit("/", 1)[-1]
        return self.name if ":" in last else f"{self.name}:latest"
