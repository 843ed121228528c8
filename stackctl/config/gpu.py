"""The `gpu:` section of stack.yaml: which way containers get the GPU."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stackctl.config.section import Section

GpuMode = Literal["auto", "nvidia", "nvidia-runtime", "cdi", "rocm", "none"]


def _index(value: Any) -> Any:
    """`devices: [0, 1]` is how people write it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Device = Annotated[str, BeforeValidator(_index, json_schema_input_type=str | int)]


class GpuConfig(Section):
    mode: GpuMode = Field(
        "auto",
        description="auto looks at the host; nvidia reserves devices, nvidia-runtime uses the older runtime, "
        "cdi names devices by the Container Device Interface, rocm is AMD, none is the CPU",
    )
    require_gpu: bool = Field(
        False,
        description="refuse the CPU instead of warning, and a written mode that this host shows no sign of",
    )
    devices: tuple[Device, ...] = Field(
        (), description="GPU indexes or UUIDs, which must be there; empty is all of them"
    )
