"""What rendering has to know of the host. Gathered elsewhere, so that rendering itself is pure and
testable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stackctl.render.gpu import CPU, GpuChoice

RuntimeName = Literal["docker", "local"]


@dataclass(frozen=True)
class Facts:
    runtime: RuntimeName
    user: str = "10001:10001"  # uid:gid that containers run as; it owns the data and the secrets
    gpu: GpuChoice = CPU
    memory: int = 8 << 30  # bytes of the host: limits that are not written are taken from it
    pins: Mapping[str, str] = field(default_factory=dict)  # image reference -> digest reference or image id
    programs: Mapping[str, str] = field(default_factory=dict)  # local runtime: program name -> path
