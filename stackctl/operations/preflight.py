"""What `up` makes sure of before it changes anything, and what it puts in place: folders, secrets, files.

A missing data mount is refused here: Docker would make the folder on the root disk and models would be pulled
anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from stackctl.errors import PreflightError
from stackctl.operations import moving
from stackctl.operations.context import Stack
from stackctl.operations.secret_kinds import MADE_HERE
from stackctl.render import Rendered, policy
from stackctl.runtime.docker import endpoint
from stackctl.runtime.generations import Generation
from stackctl.runtime.ports import Refusal, holder_of, refusal
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
            refuse_engine_socket(name, source)


def refuse_engine_socket(name: str, source: Path) -> None:
    """The policy has looked at the names; here at what they lead to, and at the engine that is used."""
    real = source.resolve()
    used = endpoint.resolve().host.removeprefix("unix://")
    held = policy.socket_in(str(real))
    if not held and used.startswith("/") and Path(used).resolve().is_relative_to(real):
        held = used
    if held:
        raise PreflightError(
            f"{name}: {source} has {held} in it, which is root on this host",
            fix=f"remove it from services.{name}.volumes, or mount a folder below it",
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
    for (name, address, number), found in held_by_others(wanted, lambda: _ours(stack), stack.choice.name):
        key = f"services.{name}.{_key(stack, name, number)}"
        if found.forbidden:
            raise PreflightError(
                f"{name}: this user may not listen on port {number} of {address}: {found.reason}",
                fix=f"set {key} to 1024 or more",
            )
        who = f" by {holder}" if (holder := holder_of(number)) else ""
        raise PreflightError(
            f"{name}: port {number} on {address} is taken{who}: {found.reason}", fix=f"stop it, or set {key}"
        )


def held_by_others(
    wanted: Iterable[Wanted], ours: Callable[[], set[int]], runtime: str
) -> list[tuple[Wanted, Refusal]]:
    """The wanted ports that the stack cannot have, and does not have, with the kernel's reason.

    What this user may not do is no reason where Docker's own process listens. Whose they are is asked only
    after they were found taken: asked before, a service that began to listen between the two would pass for a
    stranger.
    """
    refusals = [(one, refusal(one[1], one[2])) for one in wanted]
    listens = runtime == "docker" and not _rootless(refusals)
    found = [(one, why) for one, why in refusals if why and not (why.forbidden and listens)]
    known = ours() if found else set()
    return [(one, why) for one, why in found if one[2] not in known]


def _rootless(refusals: Iterable[tuple[Wanted, Refusal | None]]) -> bool:
    """Asked where it matters alone: such an engine may listen where its user may."""
    if not any(why and why.forbidden for _, why in refusals):
        return False
    from stackctl.runtime.docker.identity import identity

    return identity().rootless


def _ours(stack: Stack) -> set[int]:
    services = [service for service in stack.runtime.status().services if service.state != "exited"]
    if (other := moving.left_behind(stack)) is not None:
        services += other[1]  # taken down before this starts
    return {port.host_port for service in services for port in service.ports}


def _key(stack: Stack, name: str, port: int) -> str:
    own = name == "proxy" and port == stack.config.services.proxy.webui_port
    return "webui_port" if own else "port"
