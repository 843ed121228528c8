"""Which exact versions run, which are wanted, and which a rollback still needs.

Images that a kept generation needs get a tag of their own, so that nobody's `docker image prune` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stackctl.errors import StackctlError
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


def protect(stack: Stack, generation: Generation) -> None:
    if generation.runtime != "docker":
        return
    for service, reference in generation.meta.get("images", {}).items():
        pinned = generation.lock.get(reference)
        if pinned:
            tag = f"{KEEP_REPOSITORY}/{stack.name}:{generation.number:04d}-{service}"
            run(["docker", "tag", pinned, tag], timeout=30, check=False)


def prune(stack: Stack, keep: int) -> list[int]:
    """Forget old generations and let go of their images; current and previous always stay."""
    removed = stack.store.prune(keep)
    if stack.choice.name == "docker":
        repository = f"{KEEP_REPOSITORY}/{stack.name}"
        listed = run(["docker", "image", "ls", "--format", "{{.Tag}}", repository], timeout=60, check=False)
        there = {f"{one.number:04d}" for one in stack.store.all()}
        # By what is there, not by what was removed just now: also after a removal that was cut off.
        loose = [tag for tag in listed.stdout.split() if tag.partition("-")[0] not in there]
        if loose:
            names = [f"{repository}:{tag}" for tag in loose]
            run(["docker", "image", "rm", *names], timeout=120, check=False)
    return [generation.number for generation in removed]
