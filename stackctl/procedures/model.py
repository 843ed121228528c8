"""What a procedure is once read: front matter, inputs and steps, frozen and validated.

pydantic is the edge: a page written by a user is refused with every problem at once, each with its place.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from stackctl.config.durations import Duration
from stackctl.procedures.commands import shell_text
from stackctl.procedures.expressions import PLACEHOLDER

IDENTIFIER = re.compile(r"^[a-z][a-z0-9-]*$")
ACTION_NAME = re.compile(r"^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+$")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Action(Strict):
    """A registered action and its arguments, still holding `${{ … }}` placeholders."""

    kind: Literal["action"] = "action"
    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class Argv(Strict):
    """An outside program, started without a shell; one that is a shell says `shell: true`."""

    kind: Literal["argv"] = "argv"
    argv: tuple[str, ...] = Field(min_length=1)
    shell: bool = False
    env: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_value_becomes_code(self) -> Argv:
        text = shell_text(self.argv)
        if text is None and self.shell:
            raise ValueError(f"`shell: true` beside an argv that starts no shell: {self.argv[0]}")
        if text is not None and PLACEHOLDER.search(text):
            raise ValueError(
                f"the value of {PLACEHOLDER.findall(text)[0]} would become shell code: "
                'give it as an argument of its own ("$1"), or write {command: …, shell: true}'
            )
        return self


class Shell(Strict):
    """A shell command line; allowed only where the author wrote `shell: true`, and shown by lint."""

    kind: Literal["shell"] = "shell"
    command: str = Field(min_length=1)
    env: dict[str, str] = Field(default_factory=dict)


Operation = Action | Argv | Shell


def parse_operation(value: Any) -> Operation:
    """The forms an author may write; see docs/procedures.md."""
    if isinstance(value, (Action, Argv, Shell)):
        return value
    if isinstance(value, str):
        if ACTION_NAME.match(value):
            return Action(name=value)
        raise ValueError(
            f"{value!r} is neither an action name nor an argv list; "
            "a shell string is written as {command: …, shell: true}"
        )
    if isinstance(value, list):
        return Argv(argv=tuple(_scalar(item) for item in value))
    if isinstance(value, dict):
        return _operation_from_mapping(value)
    raise ValueError(f"expected an action, an argv list or a shell command, got {type(value).__name__}")


def _operation_from_mapping(value: dict[Any, Any]) -> Operation:
    if "argv" in value:
        return Argv.model_validate({**value, "argv": tuple(_scalar(item) for item in value["argv"])})
    if "command" in value or "shell" in value:
        rest = dict(value)
        if rest.pop("shell", False) is not True:
            raise ValueError("a shell string must say `shell: true` beside `command`")
        return Shell.model_validate(rest)
    if len(value) == 1:
        [(name, args)] = value.items()
        if ACTION_NAME.match(str(name)):
            if args is not None and not isinstance(args, dict):
                raise ValueError(f"the arguments of {name} must be a mapping, got {args!r}")
            return Action(name=str(name), args=args or {})
    raise ValueError(
        f"expected one action with its arguments, `argv:` or `command:`, got keys {sorted(map(str, value))}"
    )


def _scalar(item: Any) -> str:
    if isinstance(item, bool) or not isinstance(item, (str, int, float)):
        raise ValueError(f"every argv item must be a text or a number, got {item!r} (quote it)")
    return str(item)


def _operations(value: Any) -> tuple[Operation, ...]:
    """One operation, or a list of mappings of which every one must hold. A list of texts is an argv."""
    if value is None:
        return ()
    if isinstance(value, tuple):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return tuple(parse_operation(item) for item in value)
    return (parse_operation(value),)


Operations = Annotated[tuple[Operation, ...], BeforeValidator(_operations)]


class InputSpec(Strict):
    type: Literal["string", "integer", "number", "boolean", "duration", "path", "list"] = "string"
    default: Any = None
    required: bool = False
    secret: bool = False
    choices: list[Any] | None = None
    pattern: str | None = None
    help: str = ""

    @model_validator(mode="after")
    def _coherent(self) -> InputSpec:
        if self.required and self.default is not None:
            raise ValueError("an input with a default cannot be required")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern is not a regular expression: {error}") from None
        return self


class Manual(Strict):
    """A step that a person does: what to ask, and how the answer is recorded."""

    ask: str
    answer: Literal["done", "yes-no", "text"] = "done"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"ask": value} if isinstance(value, str) else value


class Requires(Strict):
    """What must be true of the host before the first step."""

    programs: tuple[str, ...] = ()
    runtime: Literal["docker", "local"] | None = None
    stack: bool = True
    running: bool = False
    settled: bool = False  # no change of version that was cut off waits to be ended
    root: bool = False


class FrontMatter(Strict):
    id: str
    title: str
    version: int = 1
    inputs: dict[str, InputSpec] = Field(default_factory=dict)
    requires: Requires = Requires()
    lock: Literal["stack", "none"] = "stack"
    timeout: Duration = 3600.0
    on_failure: Literal["undo", "stop"] = "undo"

    @field_validator("id")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not IDENTIFIER.match(value):
            raise ValueError(f"{value!r} must be lower-case letters, digits and dashes")
        return value

    @field_validator("inputs")
    @classmethod
    def _input_names(cls, value: dict[str, InputSpec]) -> dict[str, InputSpec]:
        for name in value:
            if not re.match(r"^[a-z][a-z0-9_]*$", name):
                raise ValueError(f"input {name!r} must be lower-case letters, digits and underscores")
        return value


class StepSpec(Strict):
    id: str
    title: str
    check: Operations = ()
    run: Operations = ()
    verify: Operations = ()
    undo: Operations = ()
    irreversible: bool | str = False
    timeout: Duration = 300.0
    retries: int = Field(default=0, ge=0, le=20)
    retry_delay: Duration = 1.0
    confirm: str | None = None
    when: str | None = None
    manual: Manual | None = None

    @field_validator("id")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not IDENTIFIER.match(value):
            raise ValueError(f"{value!r} must be lower-case letters, digits and dashes")
        return value

    @model_validator(mode="after")
    def _does_something(self) -> StepSpec:
        if self.manual is not None and self.run:
            raise ValueError("a manual step cannot also have `run`: split it in two")
        if self.manual is None and not self.run and not self.verify:
            raise ValueError("a step needs `run`, `verify` or `manual`")
        return self
