"""What every section of stack.yaml has in common: frozen, and an unknown key is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)


def unwritten(**values: Any) -> Any:
    """The default of a section: its own defaults, but for `values`; the parent's validation fills them in.

    Not an instance: each would need a validator of its own while the modules are imported, and building those
    is most of what a command's start costs.
    """
    return Field(default=values, validate_default=True)


@dataclass(frozen=True)
class Written:
    """How the sample and the reference write a value that the program keeps as a number."""

    kind: str
    text: Callable[[float], str]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_the_default(cls, value: object) -> object:
        """A key without a value, such as a section whose keys are all commented out, is one not written."""
        if not isinstance(value, dict) or None not in value.values():
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: item for key, item in value.items() if item is not None or key not in known}


def _resolve(value: Path, info: ValidationInfo) -> Path:
    """Relative paths are relative to the stack file, wherever stackctl is started from."""
    base = (info.context or {}).get("base")
    path = value.expanduser()
    return path if path.is_absolute() or base is None else Path(base, path).absolute()


HostPath = Annotated[Path, AfterValidator(_resolve)]

_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes in `512m`, `48g`, `1.5GiB`; raises ValueError that shows what would have been right."""
    squeezed = text.strip().lower().replace("ib", "").replace(" ", "")
    if len(squeezed) > 1 and squeezed[-1] == "b" and squeezed[-2] in "kmgt":
        squeezed = squeezed[:-1]
    number = squeezed.rstrip("bkmgt")
    unit = squeezed[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        raise ValueError(f"'{text}' is not a size; write it like 512m, 48g or 1.5g") from None


def format_size(size: int | float) -> str:
    """`1.5 GiB`; whole numbers lose the fraction."""
    value = float(size)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f}".removesuffix(".0") + f" {units[0]}"


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _limit(value: Any) -> Any:
    return 0 if value == "none" else _size(value)


def _short_size(size: float) -> str:
    return format_size(size).replace(" ", "").removesuffix("iB").lower()


_SIZE = Written("size", _short_size)
Size = Annotated[int, Field(gt=0), BeforeValidator(_size, json_schema_input_type=str | int), _SIZE]
SizeLimit = Annotated[int, Field(ge=0), BeforeValidator(_limit, json_schema_input_type=str | int), _SIZE]
Port = Annotated[int, Field(ge=1, le=65535)]
