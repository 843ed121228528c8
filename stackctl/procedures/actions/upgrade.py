"""`upgrade.*`, on the way there: each a few lines around `stackctl.upgrade`. The way back: `going_back`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stackctl.backup import snapshot as snapshots
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations import gate, preflight, underway
from stackctl.operations import room as rooms
from stackctl.operations.context import Stack
from stackctl.operations.room import Need
from stackctl.operations.underway import Underway
from stackctl.procedures.actions.data import data_needs
from stackctl.procedures.actions.going_back import change_of
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.upgrade import gates, switch, versions
from stackctl.upgrade.probe import Baseline


class GenerationArgs(Args):
    generation: int


class RenderArgs(Args):
    pins: dict[str, str]


class GateArgs(Args):
    generation: int
    baseline: dict[str, Any] | None = None


class RestArgs(GenerationArgs):
    leaving: int
    snapshot: str


def _stack(context: Context) -> Stack:
    return context.stack.handle


@action("upgrade.ready", reads_only=True, gives=("generation",))
def ready(context: Context, _args: Args) -> Outcome:
    """Holds when the version that runs is healthy: only then can it be gone back to."""
    stack = _stack(context)
    underway.refuse_while_open(stack)
    current = underway.in_force(stack)
    if current is None:
        raise PreflightError(f"stack {stack.name} is not up", fix="stackctl up")
    services = gates.services_of(current)
    ill = gates.ill(stack, services)
    if ill and all(state == "starting" for state in ill.values()):
        with _refused("the stack is not healthy now"):
            gate.wait_healthy(stack, services)  # a host that has just booted is not refused
        ill = {}
    if not ill and not switch.is_running(stack, current):
        what = f"what runs is not generation {current.number}, which is in force"
        raise PreflightError(f"{what}: it cannot be measured or gone back to", fix="stackctl up")
    if ill:
        listed = "; ".join(f"{name} is {state}" for name, state in ill.items())
        raise PreflightError(f"the stack is not healthy now: {listed}", fix="stackctl up")
    return Outcome(True, f"generation {current.number} is healthy", {"generation": current.number})


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """Nothing has been changed yet: whatever fails is a reason not to begin."""
    try:
        yield
    except StackctlError as error:
        raise PreflightError(f"{what}: {error.what}", fix=error.fix or "stackctl status") from error


@action("upgrade.room", reads_only=True)
def room(context: Context, _args: Args) -> Outcome:
    """Holds when the images and the data of both versions fit on the disks that they go to."""
    stack = _stack(context)
    needs = data_needs(stack.config)
    images = rooms.docker_folder(stack)
    if images is not None:
        size = sum(versions.image_size(pin) for pin in set(versions.running_pins(stack).values()) if pin)
        needs.append(Need(images, size, "new images"))
    return Outcome(True, rooms.refuse_unless_fits(needs, fix="stackctl run disk-full"))


@action("upgrade.baseline", irreversible=False, gives=("baseline",))
def baseline(context: Context, _args: Args) -> Outcome:
    """Asks the old version the probes, and remembers answers and speed."""
    with _refused("the old version cannot be asked"):
        measured = gates.measure(_stack(context))
    if measured is None:
        return Outcome(True, "no model to ask: answers and speed cannot be compared", {"baseline": None})
    first = measured.probes[0]
    speed = f"{first.tokens_per_second:.1f} tokens/s, " if first.tokens_per_second else ""
    detail = f"{measured.model}: {speed}first token after {first.first_token * 1000:.0f} ms"
    return Outcome(True, detail, {"baseline": measured.as_data()})


@action("upgrade.fetch", irreversible=False, gives=("pins",))
def fetch(context: Context, _args: Args) -> Outcome:
    """Pulls or builds the newest of every image while the old version runs."""
    from stackctl.operations import lockfile

    stack = _stack(context)
    before = versions.running_pins(stack)
    pins = versions.fetch(stack)
    diff = lockfile.diff(before, pins) if pins else ""
    for line in diff.splitlines():
        stack.say(line)
    moved = sum(before.get(reference) != pin for reference, pin in pins.items())
    return Outcome(True, f"{moved} of {len(pins)} images moved", {"pins": pins})


@action("upgrade.render", RenderArgs, irreversible=False, gives=("generation", "moved"))
def render(context: Context, args: RenderArgs) -> Outcome:
    """Writes the new generation; it is not in force before it has proven itself."""
    stack = _stack(context)
    rendered = versions.rendered_with(stack, args.pins)
    current = stack.store.current()
    if rendered.same_as(current):
        assert current is not None
        data = {"generation": current.number, "moved": False}
        return Outcome(True, f"generation {current.number} is the newest already", data)
    generation = rendered.write(stack.store, config=[str(path) for path in stack.loaded.files])
    from stackctl.operations.facts import gather

    preflight.check(stack, rendered)
    preflight.prepare(stack, rendered, gather(stack.config, stack.choice.name, args.pins).user)
    return Outcome(True, f"generation {generation.number}", {"generation": generation.number, "moved": True})


@action("upgrade.canary", GateArgs, irreversible=False)
def canary(context: Context, args: GateArgs) -> Outcome:
    """Brings the new engine up beside the old on another port and probes it there; removes it again."""
    from stackctl.upgrade import canary as canaries

    stack = _stack(context)
    full = canaries.no_room(stack)
    if full is not None:
        return Outcome(True, f"left out: {full}")
    old = Baseline.from_data(args.baseline) if args.baseline else None
    within = stack.config.services.engine.start_grace
    with canaries.running(stack, switch.generation(stack, args.generation), within) as client:
        if old is None:
            return Outcome(True, f"engine {client.version()} answers; there is no model to ask")
        detail = gates.canary_holds(client, old, stack)
    return Outcome(True, f"beside the old version: {detail}")


@action("upgrade.remove-canary", irreversible=False)
def remove_canary(context: Context, _args: Args) -> Outcome:
    """Removes what a killed canary left."""
    from stackctl.upgrade import canary as canaries

    canaries.remove(_stack(context))
    return Outcome(True, "no canary")


@action("upgrade.rested", RestArgs, reads_only=True)
def rested(context: Context, args: RestArgs) -> Outcome:
    """Holds when nothing writes to the data that was copied, or the switch of this very run has begun."""
    stack = _stack(context)
    change = underway.read(stack)
    if change is None or change.run != context.run_dir.name:
        return Outcome(False, "the services work")
    if change.switching:
        return Outcome(True, "the switch has begun")
    leaving = switch.generation(stack, args.leaving)
    writing = switch.writers(stack, leaving, switch.generation(stack, args.generation))
    if writing or snapshots.find(stack.config, args.snapshot) is None:
        return Outcome(False, f"{', '.join(writing)} may have written since" if writing else "no snapshot")
    return Outcome(True, f"snapshot {args.snapshot}")


@action("upgrade.rest", RestArgs, irreversible=False)
def rest(context: Context, args: RestArgs) -> Outcome:
    """Stops the services that write to the data and will run another version."""
    stack = _stack(context)
    _begin(context, args)
    leaving = switch.generation(stack, args.leaving)
    writing = switch.writers(stack, leaving, switch.generation(stack, args.generation))
    if writing:
        stack.say(f"stopping {', '.join(writing)} for the copy and the switch")
        stack.runtime.stop(writing)
    return Outcome(True, f"resting: {', '.join(writing)}" if writing else "nothing that moves has data")


def _begin(context: Context, args: RestArgs, *, switching: bool = False) -> Underway:
    change = change_of(context, args.leaving, args.generation, args.snapshot)
    return underway.begin(_stack(context), replace(change, switching=switching))


@action("upgrade.switch", RestArgs, irreversible=False)
def switch_to(context: Context, args: RestArgs) -> Outcome:
    """Starts the services of a generation in place of those that run."""
    stack = _stack(context)
    _begin(context, args, switching=True)
    switch.to(stack, switch.generation(stack, args.generation))
    return Outcome(True, f"generation {args.generation} is started")


@action("upgrade.health", GenerationArgs, irreversible=False)
def health(context: Context, args: GenerationArgs) -> Outcome:
    """Gate: every service becomes healthy and stays so through the stability window."""
    stack = _stack(context)
    return Outcome(
        True, gates.health(stack, switch.generation(stack, args.generation), stack.config.upgrade.stability)
    )


@action("upgrade.api", GenerationArgs, irreversible=False)
def api(context: Context, args: GenerationArgs) -> Outcome:
    """Gate: the engine answers through its published port."""
    stack = _stack(context)
    return Outcome(True, gates.api(stack, switch.generation(stack, args.generation)))


@action("upgrade.answers", GateArgs, irreversible=False)
def answers(context: Context, args: GateArgs) -> Outcome:
    """Gate: a model answers the probes like the old version did."""
    stack = _stack(context)
    old = Baseline.from_data(args.baseline) if args.baseline else None
    new = gates.measure(stack, old.model if old else None, at_most=1)
    if new is None:
        return Outcome(True, "no model to ask")
    return Outcome(True, gates.answers(new, old, stack))


@action("upgrade.speed", GateArgs, irreversible=False)
def speed(context: Context, args: GateArgs) -> Outcome:
    """Gate: tokens per second and time to first token against the old version's, on the same probes."""
    stack = _stack(context)
    if not args.baseline:
        return Outcome(True, "there is no baseline to compare with")
    return Outcome(True, gates.speed(stack, Baseline.from_data(args.baseline)))


@action("upgrade.commit", GenerationArgs, irreversible=False)
def commit(context: Context, args: GenerationArgs) -> Outcome:
    """Puts the generation in force, moves stack.lock, keeps what a rollback needs and prunes the rest."""
    stack = _stack(context)
    generation = switch.generation(stack, args.generation)
    before = stack.store.current()
    for kept in (before, generation):
        if kept is not None:
            versions.protect(stack, kept)
    snapshots.count_in(stack.config, f"before-{generation.number}")
    underway.keep(stack, generation)
    versions.prune(stack, stack.config.upgrade.keep_generations)
    snapshots.prune(stack.config, [one.number for one in stack.store.all()])
    return Outcome(True, f"generation {generation.number} is in force")


@action("upgrade.committed", GenerationArgs, reads_only=True)
def committed(context: Context, args: GenerationArgs) -> Outcome:
    """Holds when the generation is in force, and stack.lock and the data are its own."""
    stack = _stack(context)
    current = stack.store.current()
    settled = underway.read(stack) is None
    found = settled and current is not None and current.number == args.generation
    return Outcome(found, f"generation {args.generation} is {'' if found else 'not yet '}in force")


@action("upgrade.prune", irreversible=True)
def prune(context: Context, _args: Args) -> Outcome:
    """Removes generations, images and snapshots that no rollback needs."""
    stack = _stack(context)
    removed = versions.prune(stack, stack.config.upgrade.keep_generations)
    snapshots.prune(stack.config, [one.number for one in stack.store.all()])
    return Outcome(True, f"{len(removed)} old generations removed")
