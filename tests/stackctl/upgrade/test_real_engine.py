"""Upgrades of the real engine: to another image, to another installation; kept, and taken back."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import llm_engine
import pytest

from tests.support.stacks import Folder, free_port, remove_images

pytestmark = pytest.mark.timeout(500)
# What makes the runner more than ten times slower: a pause before each call into llama.cpp.
FAST = "return int(lib.llama_decode(context, self._whole))"
SLOW = "(__import__('time').sleep(0.06), int(lib.llama_decode(context, self._whole)))[1]"
BATCH = "runner/batch.py"


def settings(**more: object) -> dict[str, object]:
    upgrade = {"stability": "1s", "probe_tokens": 8, **more}
    return {"gpu": {"mode": "none"}, "upgrade": upgrade}


@pytest.fixture
def derived(engine_image: str, docker_folder: Folder) -> Iterator[str]:
    """A tag of our own that stands for the engine's image, or for one made from it."""
    tag = f"{docker_folder.name}-engine:1"
    for name in (tag, base(tag)):
        subprocess.run(["docker", "tag", engine_image, name], check=True, timeout=60)
    yield tag
    remove_images(f"{docker_folder.name}-*:1")


def base(tag: str) -> str:
    """A name for the engine's image that a Dockerfile may use: it takes no image id."""
    return tag.replace("-engine:", "-base:")


def rebuild(tag: str, *lines: str) -> str:
    """Let the tag stand for an image made from the engine's; returns its id."""
    text = "\n".join([f"FROM {base(tag)}", *lines]) + "\n"
    done = subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-"], input=text, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def running(folder: Folder) -> str:
    [service] = folder.ok("status", "--json").json["services"]
    assert (service["state"], service["health"]) == ("running", "healthy")
    return str(service["image_id"])


@pytest.mark.docker
def test_of_the_image(docker_folder: Folder, derived: str) -> None:
    service = {"image": derived, "port": free_port()}
    docker_folder.write({"runtime": "docker", "services": {"engine": service}, **settings()})
    assert docker_folder.ok("up", "--json").json["model"] == "demo"
    old = running(docker_folder)

    new = rebuild(derived, 'LABEL stackctl.test="a newer build"')
    good = docker_folder.ok("upgrade", "--canary")
    assert "beside the old version: 1 answers as before" in good.err and "tokens/s" in good.err, good.err
    assert running(docker_folder) == new != old

    slow = rebuild(
        derived,
        "USER root",
        f'RUN sed -i "s/{FAST}/return {SLOW}/" /opt/engine/lib/python3*/site-packages/llm_engine/{BATCH}'
        f" && grep -q sleep /opt/engine/lib/python3*/site-packages/llm_engine/{BATCH}",
        "USER 10001:10001",
    )
    assert slow != new
    bad = docker_folder.run("upgrade")
    assert bad.code == 4 and "too slow" in bad.err, bad.err
    assert "to ask both in turn" in bad.err
    assert running(docker_folder) == new
    said = docker_folder.ok("up").out
    assert "demo says: Hello!" in said


def newer(place: Path, slow: bool = False) -> str:
    """Another installation of stackctl and the engine beside the old one; returns its `stackctl`."""
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    ours = place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    ours.mkdir(parents=True)
    home = Path(sys.base_prefix) / "bin"
    (place / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (ours / "shared.pth").write_text(f"import site; site.addsitedir({str(site)!r})\n")
    if slow:
        copy = place / "source" / "llm_engine"
        shutil.copytree(Path(llm_engine.__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / BATCH).read_text()
        assert FAST in text
        (copy / BATCH).write_text(text.replace(FAST, f"return {SLOW}"))
    programs = place / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    for name, module in (("stackctl", "stackctl.cli.main"), ("llm-engine", "llm_engine.cli.main")):
        script = programs / name
        script.write_text(
            textwrap.dedent(f"""\
                #!{programs / "python"}
                import os, sys
                if {slow and name == "llm-engine"}:
                    sys.path.insert(0, {str(place / "source")!r})
                    os.environ["PYTHONPATH"] = {str(place / "source")!r}
                from {module} import main
                sys.exit(main())
            """)
        )
        script.chmod(0o755)
    return str(programs / "stackctl")


def started(folder: Folder) -> object:
    [service] = folder.ok("status", "--json").json["services"]
    return service["started_at"]


def words(cmdline: Path) -> str:
    with contextlib.suppress(OSError):
        return cmdline.read_text()
    return ""


def upgrade(stackctl: str, folder: Folder, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [stackctl, "upgrade", *options], cwd=folder.path, env=folder.environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def program(folder: Folder) -> str:
    [service] = folder.ok("status", "--json").json["services"]
    assert (service["state"], service["health"]) == ("running", "healthy")
    return str(service["image"])


def test_of_local_processes(folder: Folder, tmp_path: Path) -> None:
    # Three installations are compared here, on a machine where other tests come and go.
    lenient = settings(min_speed=0.3)
    folder.write({"runtime": "local", "services": {"engine": {"port": free_port()}}, **lenient})
    folder.ok("up")
    old = program(folder)
    nothing = folder.ok("upgrade")
    assert "the newest already" in nothing.err

    done = upgrade(newer(tmp_path / "second"), folder)
    assert done.returncode == 0, done.stderr
    second = str(tmp_path / "second" / "bin" / "llm-engine")
    assert program(folder) == second != old
    back = folder.ok("rollback")
    assert program(folder) == old, back.err

    slow = newer(tmp_path / "third", slow=True)
    began = started(folder)
    refused = upgrade(slow, folder, "--canary")
    assert refused.returncode == 4 and "too slow" in refused.stderr, refused.stderr
    assert started(folder) == began, "the old version was never stopped"
    assert not [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path / "third") in words(path)
    ]
    bad = upgrade(slow, folder)
    assert bad.returncode == 4 and "too slow" in bad.stderr, bad.stderr
    assert "to ask both in turn" in bad.stderr, "the verdict is not of one measurement"
    assert program(folder) == old
    listed = folder.ok("generations", "--json").json["generations"]
    assert [one["role"] for one in listed if one["role"]] == ["current", "previous"]
