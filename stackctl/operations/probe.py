"""One token through the published port: the proof that the engine computes, on a model that is there.

Which model: one that is loaded costs nothing, one that the stack file wants will be used, else the smallest
is the cheapest to load. Each can be one that only embeds, so all of them are gone through.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.config import StackConfig
from stackctl.config.models import same_model
from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import UnhealthyError
from stackctl.operations import gate
from stackctl.operations.context import Stack


@dataclass(frozen=True)
class Probe:
    seconds: float | None
    why_not: str | None = None  # no model could be asked: for people


def one_token(stack: Stack) -> Probe:
    client = stack.engine(timeout=300)
    try:
        names = candidates(client, stack.config)
        for name in names:
            if "completion" in client.show(name).get("capabilities", ["completion"]):
                stack.say(f"asking {name} for one token")
                return Probe(gate.first_token(client, name))
    except EngineError as error:
        raise UnhealthyError(f"the engine does not tell of its models: {error.what}") from error
    if not names:
        return Probe(None, "no model yet: stackctl models pull NAME")
    listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return Probe(None, f"no model was asked for a token: none here writes text ({listed})")


def candidates(client: EngineClient, config: StackConfig) -> list[str]:
    """Every model once, the best to ask first."""
    sizes = {str(model["name"]): int(model.get("size", 0)) for model in client.tags()}
    loaded = [name for model in client.ps() if (name := str(model["name"])) in sizes]
    wanted = {same_model(model.name) for model in config.models}
    asked_for = [name for name in sizes if same_model(name) in wanted]
    return list(dict.fromkeys([*loaded, *asked_for, *sorted(sizes, key=lambda name: sizes[name])]))
