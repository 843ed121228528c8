"""Which exact versions run, which are wanted, and which a rollback still needs.

Images that a kept generation needs get a tag of their own, so that nobody's `docker image prune` takes them.
The tag goes with its generation, and all of them go with the stack's data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stackctl.errors import StackctlError
from stackctl.operations import lockfile
from stackctl.operations.context import Stack
from stackctl.operations.facts import gather
from stackctl.render import Rendered, render
from stackctl.runtime.command import run
from stackctl.runtime.generations import Generation

KEEP_REPOSITORY = "stackctl-keep"


@dataclass(frozen=True)
class Outdated:
    service: str
    reference: str
    running: str
    newest: str


def running_pins(stack: Stack) -> dict[str, str]:
    current = stack.store.current()
    return dict(current.lock) if current else {}


def fetch(stack: Stack) -> dict[str, str]:
    """The newest of every image, pulled or built while the old version runs."""
    if stack.choice.name != "docker":
        return {}
    from stackctl.runtime.docker import images

    references = sorted({service.image for service in stack.config.services.enabled().values()})
    return {reference: images.refresh(reference, stack.say) for reference in references}


def rendered_with(stack: Stack, pins: Mapping[str, str]) -> Rendered:
    return render(stack.config, gather(stack.config, stack.choice.name, pins))


def outdated(stack: Stack) -> tuple[list[Outdated], list[str]]:
    """References whose newest image is not the one that runs, and those that no registry tells of.

    Asks the registry; fetches nothing.
    """
    if stack.choice.name != "docker":
        return [], []
    from stackctl.runtime.docker import images

    before = running_pins(stack)
    found, unknown = [], []
    for name, service in stack.config.services.enabled().items():
        try:
            newest = images.newest(service.image)
        except StackctlError as error:
            unknown.append(f"{name}: {error.what}")
            continue
        running = before.get(service.image, "")
        if newest != running:
            found.append(Outdated(name, service.image, running, newest))
    return found, unknown


def image_size(pin: str) -> int:
    """In bytes; 0 for one that is not here."""
    asked = run(["docker", "image", "inspect", "--format", "{{.Size}}", pin], timeout=60, check=False)
    return int(asked.stdout) if asked.returncode == 0 else 0


def protect(stack: Stack, generation: Generation) -> None:
    if generation.runtime != "docker":
        return
    for service, reference in generation.meta.get("images", {}).items():
        pinned = generation.lock.get(reference)
        if pinned:
            tag = f"{_repository(stack)}:{generation.number:04d}-{service}"
            run(["docker", "tag", pinned, tag], timeout=30, check=False)


def prune(stack: Stack, keep: int) -> list[int]:
    """Forget old generations and let go of their images; current and previous always stay."""
    removed = stack.store.prune(keep)
    if stack.choice.name == "docker":
        there = {f"{one.number:04d}" for one in stack.store.all()}
        # By what is there, not by what was removed just now: also after a removal that was cut off.
        let_go(stack, [tag for tag in kept(stack) if tag.partition("-")[0] not in there])
    return [generation.number for generation in removed]


def release(stack: Stack) -> None:
    """When the data goes, nothing is gone back to any more. What stack.lock names stays: `up` needs it, and
    what was built here cannot be fetched again."""
    if stack.choice.name == "docker":
        needed = set(lockfile.read(stack.lock_file).values())
        let_go(stack, [tag for tag, image in kept(stack).items() if image not in needed])


def kept(stack: Stack) -> dict[str, str]:
    """Tag -> image id, of all that `protect` has tagged for this stack."""
    command = ["docker", "image", "ls", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", _repository(stack)]
    listed = run(command, timeout=60, check=False)
    pairs = (line.split() for line in listed.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def let_go(stack: Stack, tags: Sequence[str]) -> None:
    """Only of the names: an image goes when nothing else names or uses it."""
    if tags:
        names = [f"{_repository(stack)}:{tag}" for tag in tags]
        run(["docker", "image", "rm", *names], timeout=120, check=False)


def _repository(stack: Stack) -> str:
    return f"{KEEP_REPOSITORY}/{stack.name}"
