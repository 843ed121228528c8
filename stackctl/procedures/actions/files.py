"""`file.*` and `disk.*`: facts about paths, and the smallest changes to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stackctl.config.section import Size, format_size
from stackctl.operations import room
from stackctl.operations.room import Need
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action


class PathArgs(Args):
    path: str


class WriteArgs(Args):
    path: str
    text: str
    mode: str = "0644"


class DiskArgs(Args):
    path: str
    at_least: Size


@action("file.exists", PathArgs, reads_only=True)
def file_exists(_context: Context, args: PathArgs) -> Outcome:
    """Holds when the path exists."""
    exists = Path(args.path).exists()
    return Outcome(exists, f"{args.path} exists" if exists else f"{args.path} does not exist")


@action("file.absent", PathArgs, reads_only=True)
def file_absent(_context: Context, args: PathArgs) -> Outcome:
    """Holds when nothing is at the path."""
    absent = not os.path.lexists(args.path)
    return Outcome(absent, f"{args.path} is absent" if absent else f"{args.path} exists")


@action("file.write", WriteArgs, irreversible=False)
def file_write(_context: Context, args: WriteArgs) -> Outcome:
    """Writes a text file, all of it or nothing."""
    path = Path(args.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(args.text, encoding="utf-8")
    draft.chmod(int(args.mode, 8))
    os.replace(draft, path)
    return Outcome(True, f"wrote {path}")


@action("file.remove", PathArgs, irreversible=True)
def file_remove(_context: Context, args: PathArgs) -> Outcome:
    """Removes one file; a missing one is fine, a folder is refused."""
    path = Path(args.path)
    if path.is_dir() and not path.is_symlink():
        return Outcome(False, f"{path} is a folder")
    path.unlink(missing_ok=True)
    return Outcome(True, f"removed {path}")


class RoomArgs(Args):
    at_least: Size


@action("disk.roomy", RoomArgs, reads_only=True)
def disk_roomy(context: Context, args: RoomArgs) -> Outcome:
    """Holds when every disk of the stack has that much room: data, state, and the images of Docker."""
    stack = context.stack.handle
    needs = [Need(folder, 0, "") for folder in room.of_stack(stack)]
    found = room.disks(needs)
    tight = [disk for disk in found if disk.free < args.at_least]
    shown = ", ".join(f"{format_size(disk.free)} free under {disk.path}" for disk in tight or found)
    return Outcome(not tight, f"{shown}, {format_size(args.at_least)} wanted")


@action("disk.free", DiskArgs, reads_only=True, gives=("free",))
def disk_free(_context: Context, args: DiskArgs) -> Outcome:
    """Holds when the file system under the path has that much room."""
    path = Path(args.path).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    detail = f"{format_size(free)} free on {path}, {format_size(args.at_least)} wanted"
    return Outcome(free >= args.at_least, detail, {"free": free})
