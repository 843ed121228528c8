"""`up`: from a configuration to a stack that is proven to work, or back to what ran before.

The order is the promise: everything that can be refused is refused before anything is changed; the reason of
a failure is shown before anything is undone; a generation is put in force only after it passed the gate.
Killed at any point, a second `up` starts over from what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.errors import PreflightError, RollbackError, StackctlError, UnhealthyError
from stackctl.operations import front, gate, lockfile, moving, preflight, underway
from stackctl.operations.context import Stack
from stackctl.operations.evidence import show_evidence
from stackctl.operations.facts import gather
from stackctl.operations.probe import Probe, one_token
from stackctl.render import Facts, Rendered, policy, render
from stackctl.render.proxy import KEY_SECRET
from stackctl.render.proxy import secrets as proxy_secrets
from stackctl.runtime import audit
from stackctl.runtime.generations import Generation
from stackctl.runtime.lock import stack_lock
from stackctl.runtime.secrets import SecretStore

GOING_BACK = 300.0


@dataclass(frozen=True)
class UpResult:
    generation: int
    previous: int | None
    changed: bool
    engine_version: str
    published: tuple[str, ...]
    token_seconds: float | None  # of the one-token probe; None when no model could be asked


def up(stack: Stack, *, deadline: float | None = None, wait_for_lock: float = 0.0) -> UpResult:
    with stack_lock(stack.name, wait=wait_for_lock):
        before = stack.store.current()
        with audit.recording(stack.name, "up", generation_from=before.number if before else None) as recorded:
            underway.complete(stack)
            underway.refuse_while_open(stack)
            rendered, _ = prepared(stack)
            generation = rendered.write(stack.store, config=[str(path) for path in stack.loaded.files])
            recorded["generation_to"] = generation.number
            return switch(stack, generation, before, rendered, deadline=deadline)


def prepared(stack: Stack) -> tuple[Rendered, Facts]:
    """Rendered, with its images here and pinned, checked, and with everything in place to start."""
    fit(stack)
    obtain_images(stack)
    rendered, facts = rendering(stack)
    for note in rendered.notes:
        stack.say(f"note: {note}")
    preflight.check(stack, rendered)
    preflight.prepare(stack, rendered, facts.user)
    return rendered, facts


def missing_images(stack: Stack) -> list[str]:
    """References that `obtain_images` would build or pull."""
    if stack.choice.name != "docker":
        return []
    from stackctl.runtime.docker import images

    locked = lockfile.read(stack.lock_file)
    wanted = {service.image for service in stack.config.services.enabled().values()}
    return sorted(
        one
        for one in wanted
        if (images.inspect(locked[one]) is None if one in locked else not images.is_current(one))
    )


def obtain_images(stack: Stack) -> None:
    if stack.choice.name != "docker":
        return
    from stackctl.runtime.docker import images

    locked = lockfile.read(stack.lock_file)
    for service in stack.config.services.enabled().values():
        if service.image in locked:
            images.obtain_pinned(service.image, locked[service.image], stack.say)
        else:
            images.obtain(service.image, stack.say)


def rendering(stack: Stack) -> tuple[Rendered, Facts]:
    """What the stack file says now, with every image pinned; nothing is written."""
    facts = gather(stack.config, stack.choice.name, lockfile.read(stack.lock_file))
    rendered = render(stack.config, facts)
    if rendered.runtime == "docker" and (loose := policy.unpinned(rendered.document)):
        raise PreflightError(
            f"image of {', '.join(loose)} could not be pinned: the engine has no digest of it",
            fix="stackctl up, which pulls or builds it",
        )
    return rendered, facts


def fit(stack: Stack) -> None:
    """The doctor's relevant checks: an error refuses, a warning is said and does not stop."""
    from stackctl.doctor.checkup import BEFORE_UP, BEFORE_UP_LOCAL, examine
    from stackctl.doctor.host import Host

    relevant = BEFORE_UP if stack.choice.name == "docker" else BEFORE_UP_LOCAL
    for finding in examine(Host(stack.config, chosen=stack.choice), relevant):
        if finding.severity == "error":
            raise PreflightError(f"{finding.id}: {finding.evidence}", fix=finding.fix)
        if finding.severity == "warning":
            stack.say(f"warning: {finding.id}: {finding.evidence}")


def switch(
    stack: Stack,
    generation: Generation,
    before: Generation | None,
    rendered: Rendered,
    *,
    deadline: float | None,
) -> UpResult:
    """Start `generation`, hold it to the gate, and put it in force; or show why not, and go back."""
    try:
        start(stack, generation)
        version, published, token = passes_gate(stack, rendered.services, deadline)
        gate.settle(stack, rendered.services, stack.runtime.watch())
    except StackctlError as error:
        show_evidence(stack, error, rendered.services)
        go_back(stack, generation, before, error)
        raise
    put_in_force(stack, generation)
    changed = before is None or before.number != generation.number
    return UpResult(
        generation.number,
        before.number if before else None,
        changed,
        version,
        tuple(published),
        token.seconds,
    )


def start(stack: Stack, generation: Generation) -> None:
    current = stack.store.current()
    in_force = current is not None and current.number == generation.number
    verb = "generation {} is in force" if in_force else "starting generation {}"
    services = ", ".join(generation.meta["services"])
    moving.leave(stack)
    stack.say(f"{verb.format(generation.number)} on {stack.runtime.name}: {services}")
    stack.runtime.up(generation, progress=stack.say)


def put_in_force(stack: Stack, generation: Generation) -> None:
    stack.store.activate(generation)
    stack.store.prune(stack.config.upgrade.keep_generations)
    preflight.prune_files(stack.config.state_path / "files", stack.store.all())


def passes_gate(
    stack: Stack, services: tuple[str, ...], deadline: float | None
) -> tuple[str, list[str], Probe]:
    before = gate.wait_healthy(stack, services, deadline=deadline)
    published = gate.only_loopback(stack)
    version, token = "", Probe(None)
    try:
        if "engine" in services:
            version = gate.engine_answers(stack.engine())
            verify_gpu(stack)
            token = one_token(stack)
        if "proxy" in services and stack.config.services.proxy.enabled:
            key = SecretStore(stack.name).get(KEY_SECRET) if proxy_secrets(stack.config) else None
            front.proxy_answers(stack.config, key)
    except StackctlError:
        gate.look(stack, services, before)  # that it crashed is the better reason
        raise
    return version, published, token


def verify_gpu(stack: Stack) -> None:
    """The engine's container must see the GPU that was chosen for it: seen from inside, not from here."""
    if stack.runtime.name != "docker" or stack.config.gpu.mode == "none":
        return
    facts = gather(stack.config, "docker")
    if facts.gpu.mode in ("none", "rocm"):
        return
    seen = stack.runtime.exec("engine", ["nvidia-smi", "-L"], timeout=30)
    if seen.returncode != 0 or "GPU" not in seen.stdout:
        why = (seen.stdout + seen.stderr).strip()[:200]
        raise UnhealthyError(
            f"the engine's container does not see the GPU ({facts.gpu.mode}): {why}",
            fix="stackctl doctor --only gpu",
        )
    stack.say(f"inside the engine: {seen.stdout.splitlines()[0]}")


def go_back(stack: Stack, failed: Generation, before: Generation | None, error: StackctlError) -> None:
    """Bring the generation before back, and prove it; with none before, take the failed one down."""
    try:
        if not return_to(stack, failed, before) or before is None:
            return
    except StackctlError as second:
        raise RollbackError(
            f"{error.what}; and going back failed: {second.what}", fix="stackctl status, then stackctl up"
        ) from error
    if not isinstance(error, UnhealthyError | PreflightError):
        raise UnhealthyError(
            f"{error.what} (went back to generation {before.number})", fix=error.fix
        ) from error


def return_to(stack: Stack, failed: Generation, before: Generation | None) -> str:
    """What was done, for people; empty when there is no other generation to return to."""
    if before is None:
        stack.say("nothing ran before: taking the failed stack down (data is kept)")
        stack.runtime.down()
        return "nothing runs, as before"
    if before.number == failed.number:
        return ""
    if before.runtime != stack.runtime.name:
        stack = moving.on(stack, before)
        moving.leave(stack)
    stack.say(f"going back to generation {before.number}")
    stack.runtime.up(before, progress=stack.say)
    services = tuple(before.meta["services"])
    # With a time of its own: the limit that was just missed belongs to the settings that are given up.
    within = max(GOING_BACK, gate.longest_grace(stack, services))
    gate.wait_healthy(stack, services, deadline=within, patient=True)
    stack.say(f"generation {before.number} is healthy again")
    return f"generation {before.number} is healthy again"
