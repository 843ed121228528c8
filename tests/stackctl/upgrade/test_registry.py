"""`outdated` and `upgrade` against a real registry: a tag moves there, and is gone back from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stackctl.upgrade.conftest import Stack, docker, image
from tests.support.registries import docker_registry

pytestmark = [pytest.mark.docker, pytest.mark.peer, pytest.mark.timeout(300)]


def push(variant: int, reference: str) -> None:
    docker("tag", image("good", variant), reference)
    docker("push", "-q", reference)
    docker("image", "rm", reference)


def test_a_tag_that_moves_in_the_registry(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack("engine")
    with docker_registry(tmp_path) as address:
        reference = f"{address}/{stack.name}:1"
        stack.images = {"engine": reference}
        stack.write()
        push(3, reference)
        stack.up()
        old = stack.running_image("engine")
        current = stack.stackctl("outdated")
        assert (current.returncode, current.stdout) == (0, ""), current.stderr

        push(4, reference)
        outdated = stack.stackctl("outdated")
        assert outdated.returncode == 7 and reference in outdated.stdout, outdated.stderr
        assert stack.running_image("engine") == old, "nothing was fetched"
        done = stack.stackctl("upgrade")
        assert done.returncode == 0 and f"+  {reference}: {address}/{stack.name}@sha256:" in done.stderr
        new = stack.running_image("engine")
        assert new != old and stack.stackctl("outdated").returncode == 0
        docker("image", "prune", "-f", "--filter", "label=stackctl.test")
        back = stack.stackctl("rollback")
        assert back.returncode == 0 and stack.running_image("engine") == old, back.stderr
        assert stack.stackctl("outdated").returncode == 7

    silent = stack.stackctl("outdated")
    assert silent.returncode == 1 and "does not tell what is newest" in silent.stderr, silent.stderr
    names = ("--format", "{{.Repository}}@{{.Digest}}", "--filter", f"reference={address}/{stack.name}")
    docker("image", "rm", *docker("image", "ls", "--digests", *names).stdout.split(), check=False)
