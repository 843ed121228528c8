"""Images: is it here, where does it come from, and what name of it can never move.

An image from a registry is pinned as `name@sha256:…`, one that was built here by its image id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stackctl.errors import PreflightError, StackctlError
from stackctl.runtime.base import Progress
from stackctl.runtime.command import CommandError, clean_environment, run, tail
from stackctl.runtime.docker import asking, sources

ROOT = Path(__file__).resolve().parents[3]

# Images that this checkout can build: name -> value of IMAGE for scripts/images.
BUILT_HERE = {"llm-engine": "cpu", "stackctl-webui": "webui", "stackctl-proxy": "proxy"}


def kind_of(reference: str) -> str | None:
    """How this checkout builds the image; None for one that it cannot build."""
    kind = BUILT_HERE.get(repository_of(reference))
    return "cuda" if kind == "cpu" and reference.partition("@")[0].endswith("-cuda") else kind


def inspect(reference: str) -> dict[str, Any] | None:
    try:
        return asking.image(reference)
    except (asking.NotHere, StackctlError):
        found = run(["docker", "image", "inspect", reference], timeout=30, check=False)
    if found.returncode != 0:
        return None
    images: list[dict[str, Any]] = json.loads(found.stdout)
    return images[0]


def pin(reference: str) -> str | None:
    """What `reference` means now, as a name that cannot move; None when it is not here."""
    if "@sha256:" in reference or reference.startswith("sha256:"):
        return reference if inspect(reference) else None
    image = inspect(reference)
    return None if image is None else pin_of(reference, image)


def pins(references: Iterable[str]) -> dict[str, str]:
    """The pins of those that are here."""
    found = {reference: inspect(reference) for reference in sorted(set(references))}
    return {reference: pin_of(reference, image) for reference, image in found.items() if image is not None}


def pin_of(reference: str, image: dict[str, Any]) -> str:
    if "@sha256:" in reference or reference.startswith("sha256:"):
        return reference
    repository = repository_of(reference)
    for digest in image.get("RepoDigests") or []:
        if digest.partition("@")[0] in (
            repository,
            f"docker.io/{repository}",
            f"docker.io/library/{repository}",
        ):
            return str(digest)
    return str(image["Id"])


def repository_of(reference: str) -> str:
    name, _, tag = reference.partition("@")[0].rpartition(":")
    return name if name and "/" not in tag else reference.partition("@")[0]


def is_current(reference: str) -> bool:
    """Here, and not behind the sources that this checkout would build it from."""
    here = inspect(reference)
    return here is not None and _source_to_build(reference, here) is None


def _source_to_build(reference: str, here: dict[str, Any] | None) -> str | None:
    """The digest of newer sources than the image was built from; None when there is nothing to build."""
    kind = kind_of(reference)
    if not kind or not (ROOT / "scripts" / "images").exists():
        return None
    source = sources.digest(kind)
    labels = (here["Config"].get("Labels") or {}) if here is not None else {}
    return None if source == labels.get(sources.LABEL) else source


def obtain(reference: str, progress: Progress) -> None:
    """Build it where this checkout can and its sources are newer than the image, else pull it when it is not
    here."""
    kind = kind_of(reference)
    script = ROOT / "scripts" / "images"
    here = inspect(reference)
    source = _source_to_build(reference, here)
    if here is not None and source is None:
        return
    try:
        if kind and source:
            progress(f"building {reference}")
            run([str(script)], timeout=3600, env=_build_environment(kind), cwd=ROOT, on_line=progress)
        else:
            pull(reference, progress)
    except CommandError as error:
        if here is not None:
            progress(
                f"warning: {reference} could not be built anew, the one from {here['Created'][:19]} is used"
            )
            return
        how = f"IMAGE={kind} scripts/images" if source else f"docker pull {reference}"
        raise PreflightError(f"image {reference} cannot be had: {error.what}", fix=how) from error
    if inspect(reference) is None:
        raise PreflightError(f"image {reference} is not here after building it", fix="docker image ls")


def pull(reference: str, progress: Progress) -> None:
    """Told by layers: gigabytes without a word look like a program that hangs."""
    progress(f"pulling {reference}")
    layers: set[str] = set()
    here: set[str] = set()

    def tell(line: str) -> None:
        layer, _, state = line.partition(": ")
        if state in ("Pulling fs layer", "Already exists"):
            layers.add(layer)
        if state in ("Pull complete", "Already exists"):
            here.add(layer)
        if state == "Pull complete":
            progress(f"pulling {reference}: {len(here)} of {len(layers)} layers")
        elif state.startswith("Retrying in"):
            progress(f"pulling {reference}: {layer}: {state.lower()}")

    run(["docker", "pull", reference], timeout=3600, on_line=progress, on_output=tell)


def obtain_pinned(reference: str, pinned: str, progress: Progress) -> None:
    """What stack.lock names is pulled by its digest; an image that was built here cannot be pulled again."""
    if inspect(pinned) is not None:
        return
    if "@sha256:" in pinned:
        try:
            pull(pinned, progress)
        except CommandError as error:
            raise PreflightError(
                f"image {pinned} cannot be had: {error.what}", fix="stackctl upgrade"
            ) from error
        return
    raise PreflightError(
        f"stack.lock says that {reference} is {pinned[:19]}, and that image is not here any more",
        fix="stackctl upgrade",
    )


def refresh(reference: str, progress: Progress) -> str:
    """The newest image of a reference, fetched while the old one runs; returns what it is pinned to."""
    image = inspect(reference)
    if image is None or repository_of(reference) in BUILT_HERE:
        if image is not None and not (ROOT / "scripts" / "images").exists():
            return pin(reference) or str(image["Id"])
        _rebuild_or_obtain(reference, progress)
    elif "@" in pin_of(reference, image) and "@sha256:" not in reference:
        pull(reference, progress)
    pinned = pin(reference)
    if pinned is None:
        raise PreflightError(f"image {reference} is not here after fetching it", fix="docker image ls")
    return pinned


def newest(reference: str) -> str:
    """What the reference means in its registry now, or here for an image without one; fetches nothing."""
    image = inspect(reference)
    if "@sha256:" in reference:
        return reference
    if image is not None and "@" not in pin_of(reference, image):
        return str(image["Id"])  # built here; that it was pushed under another name tells nothing
    asked = run(
        # As JSON: a bare field is ignored by some versions, which print a page for people instead.
        ["docker", "buildx", "imagetools", "inspect", reference, "--format", "{{json .Manifest}}"],
        timeout=60,
        check=False,
    )
    try:
        return f"{repository_of(reference)}@{json.loads(asked.stdout)['digest']}"
    except (ValueError, KeyError, TypeError):
        why = tail(asked.stderr, 1) or "it said nothing"
        raise StackctlError(f"the registry of {reference} does not tell what is newest: {why}") from None


def _rebuild_or_obtain(reference: str, progress: Progress) -> None:
    kind = kind_of(reference)
    script = ROOT / "scripts" / "images"
    if kind and script.exists():
        progress(f"building {reference}")
        run([str(script)], timeout=3600, env=_build_environment(kind), cwd=ROOT, on_line=progress)
    else:
        obtain(reference, progress)


def _build_environment(kind: str) -> dict[str, str]:
    import os

    kept = ("BASE_IMAGE", "CA_BUNDLE", "SSL_CERT_FILE", "BUILD_NETWORK", "STACKCTL_CACHE", "XDG_CACHE_HOME")
    extra = {name: os.environ[name] for name in kept if name in os.environ}
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    return clean_environment({**extra, **pip, "IMAGE": kind})
