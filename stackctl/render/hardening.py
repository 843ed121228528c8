"""What every container must have, and the exceptions, each with its reason.

Templates ask `hardening_of(service)`; the policy asks the same table. So an exception cannot be made in a
template alone: it has to be written here, with why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exception_:
    rule: str
    reason: str


REQUIRED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "init": True,
}

EXCEPTIONS: dict[str, tuple[Exception_, ...]] = {
    "comfyui": (
        Exception_("read_only", "ComfyUI and its custom nodes write caches and packages beside their code"),
    ),
}


def hardening_of(service: str) -> dict[str, Any]:
    spared = {exception.rule for exception in EXCEPTIONS.get(service, ())}
    return {rule: value for rule, value in REQUIRED.items() if rule not in spared}
