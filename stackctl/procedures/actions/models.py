"""`models.*` and `smoke.*`: does a model answer, and newer weights, kept only when they answer as well."""

from __future__ import annotations

import re
import time
from typing import Any

from stackctl.config.models import WantedModel
from stackctl.engine_api import EngineClient, EngineError
from stackctl.errors import PreflightError, UnhealthyError
from stackctl.operations import firstrun
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.redact import redacted
from stackctl.upgrade import probe
from stackctl.upgrade.probe import Baseline

ASIDE = "-before-refresh"


class ModelsArgs(Args):
    models: tuple[str, ...] = ()


class BeforeArgs(Args):
    before: tuple[dict[str, Any], ...]


class SmokeArgs(Args):
    prompt: str = "Hello!"
    model: str | None = None
    expect: str | None = None
    tokens: int = 32


def _client(context: Context) -> EngineClient:
    return context.stack.handle.engine(timeout=300)


def _names(context: Context, given: tuple[str, ...]) -> list[str]:
    wanted = given or tuple(model.full_name for model in context.stack.handle.config.models)
    return [WantedModel(name=name).full_name for name in wanted]


def _digests(client: EngineClient) -> dict[str, str]:
    return {str(model["name"]): str(model.get("digest", "")) for model in client.tags()}


@action("models.greet", irreversible=False, gives=("made", "speaker", "said"))
def greet(context: Context, _args: Args) -> Outcome:
    """Lets a stand-in model speak where the engine has no other: the whole way works before any download."""
    stack = context.stack.handle
    if "engine" not in stack.config.services.enabled():
        return Outcome(True, "no engine in this stack", {"made": None, "speaker": None, "said": None})
    made = firstrun.ensure_model(stack)
    speaker = made or firstrun.stand_in(stack)
    said = firstrun.first_words(stack, speaker) if speaker else None
    return Outcome(True, "", {"made": made, "speaker": speaker, "said": said})


@action("smoke.generate", SmokeArgs, reads_only=True, gives=("model", "answer", "seconds"))
def smoke(context: Context, args: SmokeArgs) -> Outcome:
    """Holds when a model (default: a loaded or small one) answers, and as `expect` says."""
    stack, client = context.stack.handle, _client(context)
    wanted = [model.full_name for model in stack.config.models]
    model = args.model or probe.choose_model(client, stack.config.upgrade, wanted)
    if model is None:
        return Outcome(False, "there is no model that completes text")
    began = time.monotonic()
    answer = probe.ask(client, model, args.prompt, args.tokens).answer
    seconds = round(time.monotonic() - began, 3)
    data = {"model": model, "answer": answer, "seconds": seconds}
    if args.expect is not None and not re.search(args.expect, answer):
        return Outcome(
            False, f"{model} answers {redacted(answer)[:80]!r}, which does not match {args.expect}", data
        )
    return Outcome(True, f"{model} answered within {seconds:.1f} s", data)


@action("models.remember", ModelsArgs, irreversible=False, gives=("before",))
def remember(context: Context, args: ModelsArgs) -> Outcome:
    """Keeps each model under a second name, with its answers to the probes, to go back to."""
    client, config = _client(context), context.stack.handle.config.upgrade
    there = _digests(client)
    before = []
    for name in _names(context, args.models):
        if name not in there:
            raise PreflightError(f"model {name} is not on this host", fix=f"stackctl models pull {name}")
        if there.get(name + ASIDE, there[name]) != there[name]:
            raise PreflightError(
                f"{name + ASIDE} is there, with other weights: a refresh of {name} did not end",
                fix="stackctl run model-refresh --undo",
            )
        client.copy(name, name + ASIDE)
        speaks = "completion" in client.show(name).get("capabilities", ["completion"])
        baseline = probe.measure(client, name, config, at_most=1).as_data() if speaks else None
        before.append({"name": name, "digest": there[name], "baseline": baseline})
    return Outcome(True, f"{len(before)} models remembered", {"before": before})


@action("models.unremember", ModelsArgs, irreversible=False)
def unremember(context: Context, args: ModelsArgs) -> Outcome:
    """Removes the second names where the first still stands for the same weights; undo of models.remember."""
    client = _client(context)
    there = _digests(client)
    names = [name for name in _names(context, args.models) if name + ASIDE in there]
    moved = [name for name in names if there[name + ASIDE] != there.get(name)]
    if moved:
        return Outcome(False, f"the old weights stay as {', '.join(name + ASIDE for name in moved)}")
    _forget(client, names)
    return Outcome(True, f"second names removed: {', '.join(names) or 'none'}")


@action("models.pull", ModelsArgs, irreversible=False, gives=("moved",))
def pull(context: Context, args: ModelsArgs) -> Outcome:
    """Pulls the newest of each model."""
    client = _client(context)
    before = _digests(client)
    for name in _names(context, args.models):
        context.say(f"pulling {name}")
        for _event in client.pull(name):
            pass
    after = _digests(client)
    moved = [name for name in _names(context, args.models) if before.get(name) != after.get(name)]
    return Outcome(
        True, f"newer: {', '.join(moved)}" if moved else "all are the newest already", {"moved": moved}
    )


@action("models.judge", BeforeArgs, reads_only=True)
def judge(context: Context, args: BeforeArgs) -> Outcome:
    """Asks the new weights the probes, and compares with the old answers."""
    client, config = _client(context), context.stack.handle.config.upgrade
    now = _digests(client)
    judged = []
    for model in args.before:
        if model["digest"] == now.get(model["name"]) or not model["baseline"]:
            continue
        old = Baseline.from_data(model["baseline"])
        problems = probe.judge_answers(probe.measure(client, model["name"], config, at_most=1), old, config)
        if problems:
            raise UnhealthyError(f"the newer {model['name']} is worse: {'; '.join(problems)}")
        judged.append(str(model["name"]))
    return Outcome(True, f"as good as before: {', '.join(judged)}" if judged else "nothing to compare")


@action("models.put-back", BeforeArgs, irreversible=False)
def put_back(context: Context, args: BeforeArgs) -> Outcome:
    """Gives each model its old weights again, where they are still there under the second name."""
    client = _client(context)
    there = _digests(client)
    names = [str(model["name"]) for model in args.before if str(model["name"]) + ASIDE in there]
    for name in names:
        client.copy(name + ASIDE, name)
    _forget(client, names)
    now = _digests(client)
    lost = [str(model["name"]) for model in args.before if now.get(str(model["name"])) != model["digest"]]
    if lost:
        return Outcome(False, f"the newer weights stay, the old ones were let go: {', '.join(lost)}")
    return Outcome(True, f"back: {', '.join(str(model['name']) for model in args.before)}")


@action("models.forget", BeforeArgs, irreversible=True)
def forget(context: Context, args: BeforeArgs) -> Outcome:
    """Removes the second names; the engine prunes weights that nothing names any more."""
    _forget(_client(context), [str(model["name"]) for model in args.before])
    return Outcome(True, f"{len(args.before)} old versions let go")


def _forget(client: EngineClient, names: list[str]) -> None:
    for name in names:
        try:
            client.delete(name + ASIDE)
        except EngineError as error:
            if error.status != 404:
                raise
