"""`upgrade.*`, on the way back: undo of an upgrade, and rollback, which is undone in its turn."""

from __future__ import annotations

from dataclasses import replace

from stackctl.backup import snapshot as snapshots
from stackctl.errors import PreflightError, StackctlError
from stackctl.operations import underway
from stackctl.operations.context import Stack
from stackctl.operations.evidence import show_evidence
from stackctl.operations.underway import Underway
from stackctl.procedures.context import Context
from stackctl.procedures.journal import procedure_of
from stackctl.procedures.registry import Args, Outcome, action
from stackctl.upgrade import gates, switch

MOVES = "moved-data.jsonl"


class GenerationArgs(Args):
    generation: int


class ForthArgs(GenerationArgs):
    left: int | None = None


class BackArgs(Args):
    generation: int
    left: int | None = None
    snapshot: str | None = None
    restore: str = "always"


def change_of(context: Context, came_from: int, going_to: int, snapshot: str | None = None) -> Underway:
    """As this run's change of version."""
    return Underway(procedure_of(context.run_dir), context.run_dir.name, came_from, going_to, snapshot)


def _stack(context: Context) -> Stack:
    return context.stack.handle


@action("upgrade.wake", GenerationArgs, irreversible=False)
def wake(context: Context, args: GenerationArgs) -> Outcome:
    """Undo of upgrade.rest: the old version works again, where the switch had not begun."""
    stack = _stack(context)
    change = underway.read(stack)
    if change is None:
        return Outcome(True, "the old version works")
    if change.switching:
        raise StackctlError("the data has not been put back", fix="stackctl upgrade --undo")
    old = switch.generation(stack, args.generation)
    switch.to(stack, old)
    done = gates.proven(stack, old, _window(stack))
    underway.keep(stack, old)
    return Outcome(True, done)


@action("upgrade.back", BackArgs, irreversible=False)
def back(context: Context, args: BackArgs) -> Outcome:
    """Goes back to a generation with its data, and proves that it works again."""
    left = args.generation if args.left is None else args.left
    return _back(context, args, change_of(context, left, args.generation, args.snapshot))


@action("upgrade.take-back", BackArgs, irreversible=False)
def take_back(context: Context, args: BackArgs) -> Outcome:
    """Shows why a new version does not stay, then goes back as upgrade.back does."""
    left = args.generation if args.left is None else args.left
    if args.left is not None:
        stack = _stack(context)
        leaving = switch.generation(stack, left)
        why = StackctlError(f"generation {left} does not stay")
        show_evidence(stack, why, gates.services_of(leaving))
    return _back(context, args, change_of(context, args.generation, left, args.snapshot))


def _back(context: Context, args: BackArgs, change: Underway) -> Outcome:
    stack = _stack(context)
    snapshot = snapshots.find(stack.config, args.snapshot) if args.snapshot else None
    if snapshot is None and args.restore == "always":
        named = f"{args.snapshot} is not there" if args.snapshot else "there is none of that time"
        raise PreflightError(
            f"the data cannot be put back: the snapshot {named}",
            fix=f"stackctl rollback {args.generation} --data never",
        )
    done = switch.back(
        stack,
        switch.generation(stack, args.generation),
        switch.generation(stack, args.left) if args.left is not None else None,
        snapshot,
        restore=args.restore,
        window=_window(stack),
        moves=context.run_dir / MOVES,
        change=replace(change, switching=True),
    )
    return Outcome(True, done)


@action("upgrade.forth", ForthArgs, irreversible=False)
def forth(context: Context, args: ForthArgs) -> Outcome:
    """Undo of a rollback: the generation that was left comes back, with the data of before."""
    stack = _stack(context)
    wanted = switch.generation(stack, args.generation)
    left = args.generation if args.left is None else args.left
    change = replace(change_of(context, args.generation, left), switching=True)
    moves = context.run_dir / MOVES
    return Outcome(True, switch.forth(stack, wanted, window=_window(stack), moves=moves, change=change))


def _window(stack: Stack) -> float:
    """A version that has proven itself before is watched for a shorter while."""
    return min(5.0, stack.config.upgrade.stability)


@action(
    "upgrade.target", GenerationArgs, reads_only=True, gives=("generation", "left", "snapshot", "came_from")
)
def target(context: Context, args: GenerationArgs) -> Outcome:
    """Finds which generation to go back to (0: the one before), and the data snapshot that belongs to it."""
    stack = _stack(context)
    change = underway.open_change(stack)
    if change is not None and change.procedure == "rollback" and change.run != context.run_dir.name:
        raise PreflightError(str(change), fix="stackctl rollback --resume (or --undo, which takes it back)")
    was, current = stack.store.current(), underway.in_force(stack)
    previous = stack.store.previous() if was == current else was
    if args.generation:
        wanted = switch.generation(stack, args.generation)
    elif change is not None:
        wanted = switch.generation(stack, change.came_from)
    elif current is not None and not switch.is_running(stack, current):
        # A start was cut off before its version had proven itself: the one in force is the one that worked.
        wanted = current
    elif previous is not None:
        wanted = previous
    else:
        raise PreflightError("there is no generation before this one", fix="stackctl generations")
    newer = [one.number for one in stack.store.all() if one.number > wanted.number]
    running = next((n for n in newer if switch.is_running(stack, switch.generation(stack, n))), None)
    here = running or (current or stack.store.taken_down() or wanted).number
    if change is not None and change.came_from == wanted.number:
        snapshot = change.snapshot if snapshots.find(stack.config, change.snapshot or "") else None
        here = change.going_to if change.switching else wanted.number
        left: int | None = change.going_to
    else:
        found = snapshots.of_generation(stack.config, wanted.number, newer)
        snapshot, left = found.name if found else None, here if here in newer else None
    data = {"generation": wanted.number, "left": left, "snapshot": snapshot, "came_from": here}
    return Outcome(True, f"generation {wanted.number}" + (f", data of {snapshot}" if snapshot else ""), data)
