"""The actions a step may name: a typed argument model and a function, registered under a dotted name.

`@action("http.wait", reads_only=True)` is all it takes to add one. A read-only action may be a `check` or a
`verify` and runs in `plan`; the others change something and stand in `run` or `undo` alone, and each says
itself whether what it does can be taken back: without that it is not registered. Lint,
`procedures list --actions` and the reference page are all made from this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from stackctl.errors import ConfigError
from stackctl.procedures.context import Context
from stackctl.procedures.suggest import did_you_mean

# The first word of an action's name -> the module that has it; only what a step names is imported.
ROOMS = {
    "backup": "backup",
    "compose": "stack",
    "data": "data",
    "disk": "files",
    "file": "files",
    "gpu": "gpu",
    "http": "net",
    "models": "models",
    "port": "net",
    "secrets": "secrets",
    "service": "stack",
    "smoke": "models",
    "stack": "stack",
    "upgrade": "upgrade",
}


class Args(BaseModel):
    """Base of every action's arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoArgs(Args):
    """An action that needs nothing."""


@dataclass(frozen=True)
class Outcome:
    """What an action found or did. `ok` is the answer of a check; `data` becomes `steps.<id>.<key>`."""

    ok: bool
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


ActionFunction = Callable[[Context, Any], Outcome]


@dataclass(frozen=True)
class Registered:
    name: str
    args: type[Args]
    function: ActionFunction
    reads_only: bool
    irreversible: bool
    summary: str
    gives: tuple[str, ...]


class ActionInvalid(ConfigError):
    """An unknown action, or arguments that do not fit it."""


_ACTIONS: dict[str, Registered] = {}


Register = Callable[[ActionFunction], ActionFunction]


@overload
def action(
    name: str, args: type[Args] = NoArgs, *, reads_only: Literal[True], gives: tuple[str, ...] = ()
) -> Register: ...
@overload
def action(
    name: str, args: type[Args] = NoArgs, *, irreversible: bool, gives: tuple[str, ...] = ()
) -> Register: ...
def action(
    name: str,
    args: type[Args] = NoArgs,
    *,
    reads_only: bool = False,
    irreversible: bool | None = None,
    gives: tuple[str, ...] = (),
) -> Register:
    if (irreversible is None) is not reads_only:
        raise TypeError(
            f"{name}: an action that changes something says `irreversible`, and no other one does"
        )

    def register(function: ActionFunction) -> ActionFunction:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        _ACTIONS[name] = Registered(name, args, function, reads_only, bool(irreversible), summary, gives)
        return function

    return register


def all_actions() -> dict[str, Registered]:
    for module in set(ROOMS.values()):
        importlib.import_module(f"stackctl.procedures.actions.{module}")
    return dict(sorted(_ACTIONS.items()))


def find(name: str) -> Registered:
    module = ROOMS.get(name.partition(".")[0])
    if module is not None:
        importlib.import_module(f"stackctl.procedures.actions.{module}")
    if name in _ACTIONS:
        return _ACTIONS[name]
    known = all_actions()
    raise ActionInvalid(f"{name}: there is no such action{did_you_mean(name, known)}")


def bind(registered: Registered, values: Mapping[str, Any]) -> Args:
    try:
        return registered.args.model_validate(dict(values))
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            path = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                hint = did_you_mean(path, registered.args.model_fields)
                problems.append(f"{registered.name}: {path}: unknown argument{hint}")
            else:
                problems.append(f"{registered.name}: {path}: {problem['msg'].removeprefix('Value error, ')}")
        raise ActionInvalid(f"the arguments of {registered.name} do not fit", problems=problems) from None
