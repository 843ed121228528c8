"""What a check of the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "error", "skipped"]


@dataclass(frozen=True)
class Finding:
    id: str
    severity: Severity
    evidence: str
    fix: str | None = None

    @property
    def good(self) -> bool:
        return self.severity in ("ok", "info", "skipped")


def ok(check: str, evidence: str) -> Finding:
    return Finding(check, "ok", evidence)


def warning(check: str, evidence: str, fix: str) -> Finding:
    return Finding(check, "warning", evidence, fix)


def error(check: str, evidence: str, fix: str) -> Finding:
    return Finding(check, "error", evidence, fix)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)
