"""The `health:` section of stack.yaml: what is checked, when a failure counts, and who is told.

Every key here is read by `stackctl.health`; the defaults are meant for a host with cron every five minutes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stackctl.config.durations import Duration, parse_threshold
from stackctl.config.section import Section, Written, unwritten
from stackctl.config.urls import HttpUrl
from stackctl.health import limits

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
CheckId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*(\.[A-Za-z0-9_./:@-]+)?$")]
Threshold = Annotated[
    float,
    BeforeValidator(parse_threshold, json_schema_input_type=float | str),
    Written("number, share or duration", str),
]
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class Window(Section):
    """A stretch of the week, in the host's time zone unless `timezone` is given."""

    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    start: ClockTime = Field("00:00", alias="from", description="first minute, HH:MM")
    end: ClockTime = Field(
        "24:00", alias="to", description="end, HH:MM; earlier than `from` runs past midnight"
    )
    timezone: str | None = Field(None, description="such as Europe/Berlin; default: the host's")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            import zoneinfo

            try:
                zoneinfo.ZoneInfo(value)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"'{value}' is not a time zone; write it like Europe/Berlin") from error
        return value


class Maintenance(Window):
    """A weekly window in which nobody is told of failures (they are still recorded)."""

    checks: tuple[str, ...] = Field(("*",), description="check ids or patterns such as container.*")
    reason: str = "planned maintenance"


class FlapConfig(Section):
    """When a state that changes too often is called flapping and said once, not each time."""

    window: int = Field(10, ge=4, le=100, description="how many runs are looked at")
    changes: int = Field(4, ge=2, le=50, description="changes within the window that make it flapping")
    daily: int = Field(6, ge=2, description="confirmed changes within 24 h that make it flapping, too")
    hold: Duration = Field(3600.0, description="calm needed to end it; doubles each time, up to a day")


class CheckOverride(Section):
    """What one check does differently on this host."""

    enabled: bool = True
    fail_after: int | None = Field(None, ge=1, le=100)
    ok_after: int | None = Field(None, ge=1, le=100)
    timeout: Duration | None = None
    interval: Duration | None = Field(None, description="run at most this often; 0 = at every run")
    warn: Threshold | None = Field(None, description="number, share (10%) or duration; see --explain")
    crit: Threshold | None = None
    remedy: str | None = Field(None, description="procedure to run when the failure is confirmed")


class CommandCheck(Section):
    """A check of your own: any program that follows the Nagios plug-in contract."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    argv: tuple[str, ...] = Field(min_length=1)
    timeout: Duration = 10.0
    interval: Duration = 0.0
    needs: tuple[str, ...] = Field((), description="check ids that must be well for this one to make sense")
    explain: str = Field("", description="what a woken-up person should do")
    environment: dict[str, str] = Field({})


class CertificateCheck(Section):
    """A certificate to watch: a PEM file, or what a TLS server shows."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    file: str | None = None
    connect: str | None = Field(None, description="host:port")
    server_name: str | None = Field(None, description="name asked for (SNI); default: the host")

    @model_validator(mode="after")
    def _one_source(self) -> CertificateCheck:
        if (self.file is None) == (self.connect is None):
            raise ValueError("give exactly one of file, connect")
        return self


class PingConfig(Section):
    """A healthchecks-style URL that learns of every run, so that silence is an alarm, too."""

    url: HttpUrl
    start: bool = True
    exit_code: bool = Field(False, description="send /<exit code> instead of success or /fail")
    send_output: bool = Field(False, description="send the one-line result, which can name your models")
    timeout: Duration = Field(5.0, gt=0, le=30)


class RemedyConfig(Section):
    """Whether checks may start procedures by themselves."""

    enabled: bool = False
    min_gap: Duration = Field(1800.0, description="between two starts of the same procedure")
    max_per_day: int = Field(3, ge=1)
    timeout: Duration = Field(900.0, gt=0)


class HealthConfig(Section):
    fail_after: int = Field(3, ge=1, le=100, description="runs in a row that confirm a failure")
    ok_after: int = Field(2, ge=1, le=100, description="runs in a row that confirm the recovery")
    recheck: Duration = Field(
        0.0, description="pause before a failing check is repeated in the same run; 0 = do not"
    )
    timeout: Duration = Field(10.0, gt=0, le=300, description="time limit of one check")
    reminder: Duration = Field(86400.0, description="repeat a message while the failure lasts; 0 = never")
    stale_after: Duration = Field(3600.0, gt=0, description="a gap this long makes counting start anew")
    flap: FlapConfig = unwritten()
    maintenance: tuple[Maintenance, ...] = ()
    business_hours: Window | None = Field(
        None, description="when resident models must be loaded; default: always"
    )
    tunnels: tuple[str, ...] = Field((), description="tunnels that must be up (on the client)")
    disks: tuple[str, ...] = Field((), description="more paths to watch; the data folder always is")
    certificates: tuple[CertificateCheck, ...] = ()
    commands: tuple[CommandCheck, ...] = ()
    checks: dict[CheckId, CheckOverride] = Field({}, description="overrides by check id")
    textfile: str | None = Field(None, description="Prometheus metrics are written to this .prom file")
    ping: PingConfig | None = None
    remedies: RemedyConfig = unwritten()

    @field_validator("textfile")
    @classmethod
    def _prom_suffix(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith("/") and value.endswith(".prom")):
            raise ValueError(f"'{value}' must be an absolute path that ends in .prom")
        return value

    @model_validator(mode="after")
    def _unique(self) -> HealthConfig:
        for kind, names in (
            ("command", [command.id for command in self.commands]),
            ("certificate", [certificate.name for certificate in self.certificates]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} '{twice[0]}' is defined twice")
        return self

    @model_validator(mode="after")
    def _needs_end(self) -> HealthConfig:
        """Only commands say themselves what they need, so that only they can need each other."""
        needs = {f"command.{command.id}": command.needs for command in self.commands}
        reached = {name: set(wanted) for name, wanted in needs.items()}
        for _ in needs:
            for found in reached.values():
                found.update(*(needs.get(name, ()) for name in tuple(found)))
        around = sorted(name for name, found in reached.items() if name in found)
        if around:
            raise ValueError(f"checks need each other, so that none can be first: {', '.join(around)}")
        return self

    @model_validator(mode="after")
    def _thresholds_the_right_way_round(self) -> HealthConfig:
        for name, override in self.checks.items():
            why = limits.wrong(name, override.warn, override.crit)
            if why:
                raise ValueError(f"checks.{name}: {why}")
        return self
