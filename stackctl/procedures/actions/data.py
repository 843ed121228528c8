"""`data.*`: snapshots of the authoritative data on this host."""

from __future__ import annotations

import shutil

from stackctl.backup import snapshot
from stackctl.backup.create import free_space
from stackctl.config import StackConfig
from stackctl.config.section import Size, format_size
from stackctl.errors import PreflightError
from stackctl.operations import room, underway
from stackctl.operations.room import Need
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action

SPARE = 32 << 20


class SnapshotArgs(Args):
    name: str
    leaving: int | None = None


class ReplacedArgs(Args):
    room: Size | None = None


def data_needs(config: StackConfig) -> list[Need]:
    """A copy made ahead, the copy that counts, and one more beside the live data to go back by."""
    size = snapshot.size(config) + SPARE
    place = snapshot.root(config)
    return [Need(place, 2 * size, "copies of the data"), Need(config.data_path, size, "putting a copy back")]


@action("data.room", reads_only=True)
def data_room(context: Context, _args: Args) -> Outcome:
    """Holds when a snapshot of the data fits, and one more copy to restore from it where the data is."""
    disks = room.disks(data_needs(context.stack.handle.config))
    short = [disk for disk in disks if disk.free < disk.wanted]
    return Outcome(not short, "; ".join(map(str, short or disks)))


@action("data.copy-ahead", SnapshotArgs, irreversible=False)
def data_copy_ahead(context: Context, args: SnapshotArgs) -> Outcome:
    """Copies the authoritative data while its services write, so that the snapshot then takes a moment."""
    config = context.stack.handle.config
    snapshot.copy_ahead(config, args.name)
    return Outcome(True, f"{format_size(snapshot.size(config))} copied ahead")


@action("data.snapshot", SnapshotArgs, irreversible=False, gives=("snapshot", "services"))
def data_snapshot(context: Context, args: SnapshotArgs) -> Outcome:
    """Copies the authoritative data aside, databases as of one instant."""
    stack = context.stack.handle
    change = underway.read(stack)
    if change is not None and change.switching:
        # A name that was used before is a copy of better data than what is there now.
        raise PreflightError(str(change), fix=f"stackctl {change.procedure} --undo")
    ahead = snapshot.ahead_of(stack.config, args.name)
    taken = snapshot.take(stack.config, args.name, leaving=args.leaving, copied=ahead)
    services = taken.services
    shown = ", ".join(services) or "nothing (this stack has no authoritative data)"
    return Outcome(True, f"snapshot {args.name} of {shown}", {"snapshot": args.name, "services": services})


@action("data.replaced", ReplacedArgs, reads_only=True, gives=("folders",))
def data_replaced(context: Context, args: ReplacedArgs) -> Outcome:
    """Holds when a restore or rollback has set no data aside, or there is `room` enough all the same."""
    data = context.stack.handle.config.data_path
    found = [str(path) for path in sorted(data.glob("*.replaced-*"))] if data.is_dir() else []
    listed = {"folders": found}
    if not found:
        return Outcome(True, "nothing is set aside", listed)
    if args.room is not None and (free := free_space(data)) >= args.room:
        return Outcome(True, f"{format_size(free)} are free without it", listed)
    return Outcome(False, f"set aside: {', '.join(found)}", listed)


@action("data.discard-replaced", irreversible=True)
def data_discard_replaced(context: Context, _args: Args) -> Outcome:
    """Deletes the data that restores and rollbacks have set aside."""
    data = context.stack.handle.config.data_path
    found = list(data.glob("*.replaced-*"))
    for path in found:
        shutil.rmtree(path)
    return Outcome(True, f"{len(found)} folders deleted")
