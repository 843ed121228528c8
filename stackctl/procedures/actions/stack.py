"""`stack.*` and `service.*`: the stack and its services as a whole, and the steps of bringing it up."""

from __future__ import annotations

from stackctl.config.durations import Duration
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations import gate, preflight
from stackctl.operations import up as ups
from stackctl.operations.evidence import show_evidence
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.upgrade import switch, versions


class ServicesArgs(Args):
    services: tuple[str, ...] = ()


class GenerationArgs(Args):
    generation: int


class GoBackArgs(GenerationArgs):
    previous: int | None = None


class GateArgs(GenerationArgs):
    within: Duration | None = None


@action("stack.fit", reads_only=True)
def stack_fit(context: Context, _args: Args) -> Outcome:
    """Refuses a host that the stack cannot run on: what `stackctl doctor` calls an error."""
    ups.fit(context.stack.handle)
    return Outcome(True)


@action("stack.has-images", reads_only=True)
def stack_has_images(context: Context, _args: Args) -> Outcome:
    """Holds when every image is here, and none is behind the sources that it is built from."""
    missing = ups.missing_images(context.stack.handle)
    return Outcome(not missing, f"wanted: {', '.join(missing)}" if missing else "")


@action("stack.get-images", irreversible=False)
def stack_get_images(context: Context, _args: Args) -> Outcome:
    """Builds or pulls the images that are not here."""
    ups.obtain_images(context.stack.handle)
    return Outcome(True)


@action("stack.rendered", reads_only=True, gives=("generation", "previous"))
def stack_rendered(context: Context, _args: Args) -> Outcome:
    """Holds when the generation in force is what the stack file says, and what it needs is in place."""
    stack = context.stack.handle
    rendered, _ = ups.rendering(stack)
    current = stack.store.current()
    if current is None or not rendered.same_as(current):
        was = f"generation {current.number} says something else" if current else "nothing is in force"
        return Outcome(False, was)
    preflight.check(stack, rendered)
    if missing := preflight.missing(stack, rendered):
        return Outcome(False, f"not in place: {', '.join(missing)}")
    for note in rendered.notes:
        context.say(f"note: {note}")
    return Outcome(True, f"generation {current.number}", _numbers(current.number, current.number))


@action("stack.render", irreversible=False, gives=("generation", "previous"))
def stack_render(context: Context, _args: Args) -> Outcome:
    """Renders the stack file, refuses what cannot work, and writes a generation; nothing is started."""
    stack = context.stack.handle
    rendered, facts = ups.rendering(stack)
    for note in rendered.notes:
        context.say(f"note: {note}")
    preflight.check(stack, rendered)
    preflight.prepare(stack, rendered, facts.user)
    before = stack.store.current()
    generation = rendered.write(stack.store, config=[str(path) for path in stack.loaded.files])
    number = generation.number
    return Outcome(True, f"generation {number}", _numbers(number, before.number if before else None))


def _numbers(generation: int, previous: int | None) -> dict[str, int | None]:
    return {"generation": generation, "previous": previous}


@action("stack.runs", GenerationArgs, reads_only=True)
def stack_runs(context: Context, args: GenerationArgs) -> Outcome:
    """Holds when every service runs with exactly that generation's settings, and no other one runs."""
    stack = context.stack.handle
    found = switch.is_running(stack, switch.generation(stack, args.generation))
    return Outcome(found, f"generation {args.generation} {'runs' if found else 'does not run'}")


@action("stack.start", GenerationArgs, irreversible=False)
def stack_start(context: Context, args: GenerationArgs) -> Outcome:
    """Starts what differs from that generation; the next steps prove it."""
    stack = context.stack.handle
    generation = switch.generation(stack, args.generation)
    try:
        ups.start(stack, generation)
    except StackctlError as error:
        show_evidence(stack, error, tuple(generation.meta["services"]))
        raise
    return Outcome(True)


@action("stack.go-back", GoBackArgs, irreversible=False)
def stack_go_back(context: Context, args: GoBackArgs) -> Outcome:
    """Brings the generation before back, healthy; with none before, takes the failed one down."""
    stack = context.stack.handle
    failed = switch.generation(stack, args.generation)
    before = stack.store.get(args.previous) if args.previous is not None else None
    done = ups.return_to(stack, failed, before)
    return Outcome(True, done or f"there is no generation but {failed.number} to go back to")


@action("stack.gate", GateArgs, irreversible=False, gives=("version", "token_seconds", "no_token"))
def stack_gate(context: Context, args: GateArgs) -> Outcome:
    """Waits until every service is healthy, then asks the engine for one token of a model."""
    stack = context.stack.handle
    services = tuple(switch.generation(stack, args.generation).meta["services"])
    try:
        version, published, token = ups.passes_gate(stack, services, args.within)
    except StackctlError as error:
        show_evidence(stack, error, services)
        raise
    data = {"version": version, "token_seconds": token.seconds, "no_token": token.why_not}
    return Outcome(True, f"healthy; published: {', '.join(published) or 'nothing'}", data)


@action("stack.settled", GenerationArgs, irreversible=False)
def stack_settled(context: Context, args: GenerationArgs) -> Outcome:
    """Holds when every service has run for its `stable_for`, and none ended since it was started."""
    stack = context.stack.handle
    services = tuple(switch.generation(stack, args.generation).meta["services"])
    try:
        gate.settle(stack, services, stack.runtime.watch())
    except StackctlError as error:
        show_evidence(stack, error, services)
        raise
    return Outcome(True, f"still running: {', '.join(services)}")


@action("stack.in-force", GenerationArgs, reads_only=True)
def stack_in_force(context: Context, args: GenerationArgs) -> Outcome:
    """Holds when the generation is the one that `status`, `upgrade` and `rollback` go by."""
    current = context.stack.handle.store.current()
    found = current is not None and current.number == args.generation
    return Outcome(found, f"generation {args.generation} is {'' if found else 'not '}in force")


@action("stack.put-in-force", GenerationArgs, irreversible=False)
def stack_put_in_force(context: Context, args: GenerationArgs) -> Outcome:
    """Puts a proven generation in force, and lets go of those that no rollback needs."""
    stack = context.stack.handle
    generation = switch.generation(stack, args.generation)
    for kept in (stack.store.current(), generation):
        if kept is not None:
            versions.protect(stack, kept)
    ups.put_in_force(stack, generation)
    versions.prune(stack, stack.config.upgrade.keep_generations)
    return Outcome(True, f"generation {args.generation} is in force")


@action("stack.up", irreversible=False, gives=("generation",))
def stack_up(context: Context, _args: Args) -> Outcome:
    """All of bring-up in one action, gates and return to the old generation included; for undo."""
    result = ups.up(context.stack.handle)
    return Outcome(True, f"generation {result.generation}", {"generation": result.generation})


@action("stack.down", irreversible=False)
def stack_down(context: Context, _args: Args) -> Outcome:
    """Takes the stack down; data stays."""
    from stackctl.operations.down import down

    down(context.stack.handle)
    return Outcome(True, "down")


@action("stack.is-down", reads_only=True)
def stack_is_down(context: Context, _args: Args) -> Outcome:
    """Holds when nothing of the stack runs."""
    running = [one.name for one in context.stack.handle.runtime.status().services if one.state != "absent"]
    return Outcome(not running, f"there: {', '.join(running)}" if running else "nothing runs")


@action("stack.healthy", ServicesArgs, reads_only=True)
def stack_healthy(context: Context, args: ServicesArgs) -> Outcome:
    """Holds when the services (default: all) run and are healthy."""
    stack = context.stack.handle
    status = stack.runtime.status()
    names = args.services or tuple(stack.config.services.enabled())
    ill = [
        f"{name} is {status.service(name).state} and {status.service(name).health}"
        for name in names
        if (status.service(name).state, status.service(name).health) != ("running", "healthy")
    ]
    return Outcome(not ill, "; ".join(ill) or f"healthy: {', '.join(names)}")


@action("compose.up", ServicesArgs, irreversible=False)
def compose_up(context: Context, args: ServicesArgs) -> Outcome:
    """Starts what does not run of the generation in force, and waits until it is healthy."""
    stack = context.stack.handle
    current = stack.store.current()
    if current is None or current.runtime != "docker":
        raise PreflightError(f"no containers of stack {stack.name} are in force", fix="stackctl up")
    services = args.services or tuple(current.meta["services"])
    stack.runtime.up(current, args.services or None, progress=stack.say)
    gate.wait_healthy(stack, services)
    return Outcome(True, f"up: {', '.join(services)}")


@action("service.restart", ServicesArgs, irreversible=False)
def service_restart(context: Context, args: ServicesArgs) -> Outcome:
    """Restarts services and waits until they are healthy."""
    stack = context.stack.handle
    stack.runtime.restart(args.services)
    gate.wait_healthy(stack, args.services)
    return Outcome(True, f"restarted {', '.join(args.services)}")
