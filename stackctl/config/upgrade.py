"""The `upgrade:` section of stack.yaml: what a new version must prove before it may stay."""

from __future__ import annotations

from pydantic import Field

from stackctl.config.durations import Duration
from stackctl.config.section import Section


class Probe(Section):
    """A question that is put to the old version and to the new one."""

    prompt: str = Field(min_length=1)
    expect: str | None = Field(
        None, description="regular expression the answer must contain; default: likeness to the old answer"
    )


class UpgradeConfig(Section):
    healthy_within: Duration | None = Field(
        None, gt=0, description="time to become healthy; default: the longest start_grace of the services"
    )
    stability: Duration = Field(30.0, ge=0, description="no restart and no failed check for so long")
    probes: tuple[Probe, ...] = Field(
        ({"prompt": "Count from one to ten in words."},),
        validate_default=True,
        description="asked of the old and of the new version",
    )
    probe_model: str | None = Field(
        None, description="model that is asked; default: a loaded one, else the smallest"
    )
    probe_tokens: int = Field(48, ge=1, le=4096, description="tokens asked for in each probe")
    min_likeness: float = Field(
        0.5,
        ge=0,
        le=1,
        description="how much of the old answer the new one must repeat, where no expect is given",
    )
    min_speed: float = Field(
        0.7, ge=0, description="tokens per second of the new version, as a share of the old"
    )
    max_first_token: float = Field(
        3.0, gt=0, description="time to first token of the new version, as a multiple of the old"
    )
    first_token_slack: Duration = Field(
        0.25, ge=0, description="added to that limit: a difference that nobody notices is no regression"
    )
    canary: bool = Field(False, description="probe the new engine on another port first, beside the old")
    keep_generations: int = Field(
        5, ge=2, description="generations, images and data snapshots kept for rollback"
    )
