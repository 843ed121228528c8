"""What `up` makes sure of before it changes anything, and what it puts in place: folders, secrets, files.

A missing data mount is refused here: Docker would make the folder on the root disk and models would be pulled
anew.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from stackctl.errors import PreflightError
from stackctl.operations import moving
from stackctl.operations.context import Stack
from stackctl.operations.secret_kinds import MADE_HERE
from stackctl.render import Rendered
from stackctl.runtime.generations import Generation
from stackctl.runtime.ports import holder_of
from stackctl.runtime.secrets import SecretStore

Wanted = tuple[str, str, int]  # service, address, port


def check(stack: Stack, rendered: Rendered) -> None:
    """Refuse with a reason, or return."""
    _mount(stack)
    _models(stack)
    _ports(stack, rendered)
    for name, body in rendered.document["services"].items():
        for volume in body.get("volumes", []):
            source = Path(volume["source"].replace("$$", "$"))
            ours = str(source) in rendered.folders or source.is_relative_to(stack.config.state_path)
            if not ours and not source.exists():
                raise PreflightError(
                    f"{name}: {source} does not exist, and is not made silently", fix=f"mkdir -p {source}"
                )


def prepare(stack: Stack, rendered: Rendered, user: str) -> None:
    """Folders, secrets and configuration files, owned by whom the services run as."""
    uid, _, gid = user.partition(":")
    owner = (int(uid), int(gid)) if os.geteuid() == 0 and rendered.runtime == "docker" else None
    for folder in rendered.folders:
        _make(Path(folder), owner)
    secrets = SecretStore(stack.name)
    for made in secrets.ensure(rendered.secrets, MADE_HERE):
        stack.say(f"made secret {made}")
    if owner:
        secrets.give_to(rendered.secrets, *owner)
    files = stack.config.state_path / "files"
    for name, text in rendered.files.items():
        if name in ("compose.yaml", "processes.yaml"):
            continue
        files.mkdir(parents=True, exist_ok=True)
        aside = files / f".{name}.new"
        aside.write_text(text)
        aside.chmod(0o644)
        aside.rename(files / name)


def missing(stack: Stack, rendered: Rendered) -> list[str]:
    """What `prepare` would make: folders, secrets, configuration files that are not as rendered."""
    found = [folder for folder in rendered.folders if not Path(folder).is_dir()]
    there = set(SecretStore(stack.name).names())
    found += [f"secret {name}" for name in rendered.secrets if name not in there]
    files = stack.config.state_path / "files"
    for name, text in rendered.files.items():
        if name in ("compose.yaml", "processes.yaml"):
            continue
        path = files / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(str(path))
    return found


def prune_files(files: Path, kept: Iterable[Generation]) -> None:
    """Remove configuration files that no kept generation has, and what a killed writer left."""
    if not files.is_dir():
        return
    names = {found.name for generation in kept for found in generation.path.iterdir()}
    for found in files.iterdir():
        if found.is_file() and found.name not in names:
            found.unlink()


def _make(folder: Path, owner: tuple[int, int] | None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightError(
            f"cannot make {folder}: {error.strerror}", fix="set data_dir in the stack file"
        ) from error
    if owner and (folder.stat().st_uid, folder.stat().st_gid) != owner:
        # Ours from the start: a stack that moves from local processes to containers keeps its data.
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)


def _mount(stack: Stack) -> None:
    mount = stack.config.data_mount
    if mount is not None and not os.path.ismount(mount):
        raise PreflightError(
            f"data_mount {mount} is not mounted, so data would go to the disk below it", fix=f"mount {mount}"
        )


def _models(stack: Stack) -> None:
    """A models folder that the stack file names is somebody's: it is there, or its disk is not mounted."""
    folder = stack.config.services.engine.models_dir
    if folder is not None and not Path(folder).is_dir():
        what = "is not a folder" if Path(folder).exists() else "does not exist"
        raise PreflightError(
            f"engine: models_dir {folder} {what} (is its disk mounted?), and is not made silently",
            fix=f"mkdir -p {folder}",
        )


def _ports(stack: Stack, rendered: Rendered) -> None:
    """A port that another program holds is found before the old container is removed."""
    wanted = [
        (name, port["host_ip"], int(port.get("published") or port["port"]))
        for name, body in rendered.document["services"].items()
        for port in body.get("ports", [])
    ]
    for (name, address, number), reason in held_by_others(wanted, lambda: _ours(stack)):
        who = f" by {found}" if (found := holder_of(number)) else ""
        raise PreflightError(
            f"{name}: port {number} on {address} is taken{who}: {reason}",
            fix=f"stop it, or set services.{name}.{_key(stack, name, number)}",
        )


def held_by_others(wanted: Iterable[Wanted], ours: Callable[[], set[int]]) -> list[tuple[Wanted, str]]:
    """The wanted ports that are taken, and not by the stack itself, with the kernel's reason.

    Whose they are is asked only after they were found taken: asked before, a service that began to listen
    between the two would pass for a stranger.
    """
    found = [(one, reason) for one in wanted if (reason := _taken(one[1], one[2]))]
    known = ours() if found else set()
    return [(one, reason) for one, reason in found if one[2] not in known]


def _ours(stack: Stack) -> set[int]:
    services = [service for service in stack.runtime.status().services if service.state != "exited"]
    if (other := moving.left_behind(stack)) is not None:
        services += other[1]  # taken down before this starts
    return {port.host_port for service in services for port in service.ports}


def _key(stack: Stack, name: str, port: int) -> str:
    own = name == "proxy" and port == stack.config.services.proxy.webui_port
    return "webui_port" if own else "port"


def _taken(address: str, port: int) -> str | None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror or str(error)
    return None
