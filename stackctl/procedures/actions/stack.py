"""`stack.*` and `service.*`: the stack and its services as a whole."""

from __future__ import annotations

from stackctl.operations import gate
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action


class ServicesArgs(Args):
    services: tuple[str, ...] = ()


@action("stack.up", gives=("generation",))
def stack_up(context: Context, _args: Args) -> Outcome:
    """Brings the stack up as `stackctl up` does, gates and return to the old generation included."""
    from stackctl.operations.up import up

    result = up(context.stack.handle)
    return Outcome(True, f"generation {result.generation}", {"generation": result.generation})


@action("stack.down")
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


@action("service.restart", ServicesArgs)
def service_restart(context: Context, args: ServicesArgs) -> Outcome:
    """Restarts services and waits until they are healthy."""
    stack = context.stack.handle
    stack.runtime.restart(args.services)
    gate.wait_healthy(stack, args.services)
    return Outcome(True, f"restarted {', '.join(args.services)}")
