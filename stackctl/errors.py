"""Every failure a user can cause, as one tree; each class is a situation and owns its exit code.

    StackctlError            1  the operation failed
    ├── UsageError           2  the command line or the configuration is wrong
    │   └── ConfigError      2  stack.yaml and its neighbours
    ├── PreflightError       3  refused before anything was changed
    ├── UnhealthyError       4  did not become healthy in time; nothing changed, or rolled back
    ├── RollbackError        5  failed, and going back failed too: a person is needed
    ├── LockHeldError        6  another stackctl works on this stack
    └── PlanHasChanges       7  `plan --detailed-exitcode` found something to do

Raised with concrete values; rendered in one place (`stackctl.cli.main`).
"""

from __future__ import annotations


class StackctlError(Exception):
    """What failed and why; `fix` is one command (or one edit) that helps."""

    exit_code = 1

    def __init__(self, what: str, *, fix: str | None = None, more: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.more = more


class UsageError(StackctlError):
    exit_code = 2


class ConfigError(UsageError):
    """All problems of one configuration at once; `problems` are ready-to-print lines."""

    def __init__(self, what: str, *, problems: list[str] | None = None, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.problems = problems or []


class PreflightError(StackctlError):
    exit_code = 3


class UnhealthyError(StackctlError):
    exit_code = 4


class RollbackError(StackctlError):
    exit_code = 5


class LockHeldError(StackctlError):
    exit_code = 6


class PlanHasChanges(StackctlError):
    exit_code = 7
