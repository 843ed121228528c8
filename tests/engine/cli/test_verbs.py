"""The verbs, run as their user runs them, against a real server and its store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llm_engine.models.create import create_from_gguf
from llm_engine.models.store import ModelStore

from tests.support.engine import EngineServer, start_engine
from tests.support.http import Client
from tests.support.models import SENTENCE, ModelMaker
from tests.support.registries import model_registry, serving

Run = Callable[..., subprocess.CompletedProcess[str]]

# Root without the right to ignore permissions is an ordinary user to its own files of mode 0.
UNPRIVILEGED = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = tmp_path_factory.mktemp("verbs")
    server = start_engine(folder / "models", folder / "log", HOME=str(folder))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def folder(server: EngineServer) -> Path:
    return server.log.parent


@pytest.fixture
def run(server: EngineServer, folder: Path) -> Run:
    def run(
        *arguments: str, stdin: str = "", check: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).with_name("llm-engine"))
        env = {
            **os.environ,
            **more,
            "OLLAMA_HOST": server.url,
            "HOME": str(folder),
            "OLLAMA_MODELS": str(folder / "models"),
        }
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            cwd=folder,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="module", autouse=True)
def model(folder: Path, chat_gguf: Path) -> None:
    create_from_gguf(
        ModelStore(folder / "models"), "hello", chat_gguf, system="Be brief.", params={"stop": ["zzz"]}
    )


def test_list_has_ollamas_columns(run: Run) -> None:
    head, *rows = run("list").stdout.splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert any(row.startswith("hello:latest    ") for row in rows)
    assert run("ls", "nothing").stdout.splitlines() == [head.split()[0] + "    ID    SIZE    MODIFIED    "]
    document = json.loads(run("list", "--json").stdout)
    assert document["schema"] == "llm-engine/models/1"


def test_show(run: Run) -> None:
    shown = run("show", "hello").stdout
    assert "    architecture        llama" in shown
    assert "  Capabilities\n    completion    \n" in shown
    assert '    stop    "zzz"' in shown
    assert run("show", "hello", "--system").stdout == "Be brief.\n"
    both = run("show", "hello", "--system", "--license", check=False)
    assert both.returncode == 2 and "only one of" in both.stderr


def test_a_shown_modelfile_makes_the_same_model_again(run: Run, folder: Path) -> None:
    (folder / "Again").write_text(run("show", "hello", "--modelfile").stdout)
    made = run("create", "again", "-f", "Again").stderr
    assert made.splitlines()[-2:] == ["writing manifest", "success"]
    store = ModelStore(folder / "models")
    assert store.resolve("again").digest == store.resolve("hello").digest
    run("rm", "again")


def test_create_from_a_file_and_quantised(run: Run, folder: Path, chat_gguf: Path) -> None:
    (folder / "Modelfile").write_text(f"FROM {chat_gguf}\nSYSTEM hi\n")
    statuses = run("create", "small", "-q", "q8_0").stderr.splitlines()
    assert any(line.startswith("quantizing F16 model to Q8_0") for line in statuses)
    assert ModelStore(folder / "models").resolve("small").config.file_type == "Q8_0"
    assert run("run", "small", "hi").stdout.strip() == SENTENCE
    refused = run("create", "x", "-q", "q9", check=False)
    assert refused.returncode == 1 and "unsupported quantization type Q9" in refused.stderr
    run("rm", "small")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("SYSTEM x", "no FROM line"),
        ("FROM hello\nPARAMETER foo 1", "(line 2): unknown parameter 'foo'"),
        ("\nFROM ./missing.gguf", "(line 2): FROM ./missing.gguf: there is no such file"),
        ("FROM hello\nADAPTER ./missing.gguf", "(line 2): ADAPTER ./missing.gguf: there is no such file"),
        ("FROM hello\nTEMPLATE {{ .x", "(line 2): template error: template: :1: unclosed action"),
        ("FROM hello\nPARSER nosuch", '(line 2): unknown parser "nosuch"'),
        ("FROM hello\nRENDERER qwen3-codr", 'unknown renderer "qwen3-codr" (did you mean "qwen3-coder"?)'),
        ("FROM hello\nPARAMETER num_ctx -5", '(line 2): parameter "num_ctx" must be at least 1, not -5'),
    ],
)
def test_modelfiles_that_are_refused(run: Run, text: str, why: str) -> None:
    done = run("create", "x", "-f", "-", stdin=text, check=False)
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "flags", "text", "why"),
    [
        ("bad name", (), "", "invalid model name"),
        ("x", ("-q", "q9"), "", "unsupported quantization type Q9"),
        ("x", (), "TEMPLATE {{ .x", "(line 2): template error: template: :1: unclosed action"),
    ],
)
def test_mistakes_are_told_before_a_file_is_sent(
    run: Run, make_gguf: ModelMaker, name: str, flags: tuple[str, ...], text: str, why: str
) -> None:
    path = make_gguf(f"told {name} {flags} {text}")
    done = run("create", name, "-f", "-", *flags, stdin=f"FROM {path}\n{text}", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {why}")
    assert "uploading" not in done.stderr


def test_a_model_cut_short_in_the_store_is_named(run: Run, folder: Path, make_gguf: ModelMaker) -> None:
    (folder / "Modelfile").write_text(f"FROM {make_gguf('cut short')}")
    run("create", "cut")
    path = ModelStore(folder / "models").resolve("cut").model_path
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    done = run("run", "cut", "hi", check=False)
    digest = path.name.replace("-", ":")
    assert done.stderr == (
        f"error: model 'cut:latest' is incomplete: blob {digest} is truncated\nfix: llm-engine doctor\n"
    )
    assert "cut:latest" not in run("list").stdout  # nothing can be done with it; doctor tells of it
    assert "error: cut:latest: its model layer" in run("doctor", check=False).stdout
    path.write_bytes(whole)
    assert run("run", "cut", "hi").stdout.strip() == "cut short"
    run("rm", "cut")


@pytest.mark.parametrize(
    ("instruction", "converter"),
    [("FROM", "convert_hf_to_gguf.py"), ("FROM hello\nADAPTER", "convert_lora_to_gguf.py")],
)
def test_other_formats_are_refused_with_what_converts_them(
    run: Run, tmp_path: Path, instruction: str, converter: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    done = run("create", "x", "-f", "-", stdin=f"{instruction} {tmp_path}", check=False)
    assert done.returncode == 1
    assert "model.safetensors is not a GGUF file" in done.stderr
    assert f"fix: python {converter} {tmp_path} --outfile model.gguf" in done.stderr


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (200, "in a file of 200 bytes"),
        (50_000, "GGUF file is truncated: tensor"),
        (-1, "GGUF file is truncated: tensor"),
        (0, "not in GGUF format"),
    ],
)
def test_a_file_cut_short_is_refused_before_it_is_sent(
    run: Run, tmp_path: Path, chat_gguf: Path, size: int, why: str
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(chat_gguf.read_bytes()[:size])
    done = run("create", "x", "-f", "-", stdin=f"FROM {path}", check=False)
    assert done.returncode == 1
    assert f"error: {path}: " in done.stderr and why in done.stderr
    assert f"fix: sha256sum {path}" in done.stderr
    assert "uploading" not in done.stderr
    assert not any(line.startswith("x:") for line in run("list").stdout.splitlines())


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="drops a capability of root's")
def test_a_file_without_permission_is_named(server: EngineServer, tmp_path: Path, chat_gguf: Path) -> None:
    path = tmp_path / "secret.gguf"
    shutil.copy(chat_gguf, path)
    path.chmod(0)
    (tmp_path / "Modelfile").write_text(f"FROM {path}")
    done = subprocess.run(
        [*UNPRIVILEGED, str(Path(sys.executable).with_name("llm-engine")), "create", "x"],
        cwd=tmp_path,
        env=os.environ | {"OLLAMA_HOST": server.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: {path} cannot be read: Permission denied" in done.stderr
    assert f"fix: sudo chmod a+r {path}" in done.stderr


def test_run_cp_ps_stop_rm(run: Run) -> None:
    assert run("cp", "hello", "two").stdout == "copied 'hello' to 'two'\n"
    done = run("run", "two", "hi", "--verbose")
    assert done.stdout == f"{SENTENCE}\n\n"
    assert "eval rate:" in done.stderr
    assert run("run", "two", stdin="from a pipe").stdout == f"{SENTENCE}\n\n"
    row = next(line for line in run("ps").stdout.splitlines() if "two" in line)
    assert "100% CPU" in row
    run("stop", "two")
    assert "two" not in run("ps").stdout
    assert run("rm", "two").stdout == "deleted 'two'\n"


def test_a_model_for_a_newer_ollama_runs_with_a_warning(run: Run) -> None:
    for version, warned in (("99.0.0", True), ("v0.14.0", False), ("0.32.0-rc1", False)):
        run("create", "newer", "-f", "-", stdin=f"FROM hello\nREQUIRES {version}")
        done = run("run", "newer", "hi")
        assert done.stdout == f"{SENTENCE}\n\n"
        warning = f"warning: newer requires Ollama {version}; this engine follows 0.32.0\n"
        assert done.stderr == (warning if warned else "")
    run("rm", "newer")


def test_what_is_not_there(run: Run) -> None:
    for arguments, text in (
        (("show", "nope"), "model 'nope:latest' not found"),
        (("rm", "nope"), "model 'nope' not found"),
        (("cp", "nope", "x"), 'model "nope" not found'),
        (("stop", "nope"), 'couldn\'t find model "nope" to stop'),
        (("push", "nope"), "model 'nope:latest' not found"),
        (("export", "nope"), "model 'nope:latest' not found"),
        (("pull", "bad name"), "invalid model name"),
    ):
        done = run(*arguments, check=False)
        assert done.returncode == 1, arguments
        assert text in done.stderr


def test_no_server(run: Run) -> None:
    program = str(Path(sys.executable).with_name("llm-engine"))
    env = {**os.environ, "OLLAMA_HOST": "127.0.0.1:9"}
    done = subprocess.run([program, "list"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: could not connect to the engine at http://127.0.0.1:9")
    assert "fix: llm-engine serve" in done.stderr


def test_pull_through_the_server(run: Run, server: EngineServer, chat_gguf: Path) -> None:
    with serving(model_registry(chat_gguf.read_bytes(), ("system", b"pulled"))) as registry:
        name = f"{registry.host}/some/pulled"
        statuses = run("pull", name, "--insecure").stderr.splitlines()
        assert statuses[0] == "pulling manifest" and statuses[-1] == "success"
        assert run("show", name, "--system").stdout == "pulled\n"
        whole = Client(server.url).post("/api/pull", {"model": name, "insecure": True, "stream": False})
        assert (whole.status, whole.json) == (200, {"status": "success"})
        refused = Client(server.url).post("/api/pull", {"model": f"http://{name}"})
        assert refused.lines[-1] == {"error": "pull model manifest: insecure protocol http"}
        run("rm", name)


def test_export_import_doctor(run: Run, folder: Path) -> None:
    run("export", "hello", "-o", "hello.tar")
    assert run("import", "hello.tar", "--models", "other").stdout == "imported 'hello:latest'\n"
    assert (
        ModelStore(folder / "other").resolve("hello").digest
        == ModelStore(folder / "models").resolve("hello").digest
    )
    assert "nothing is wrong" in run("doctor", "--models", "other", "--verify").stdout
    path = ModelStore(folder / "other").resolve("hello").model_path
    assert path is not None
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert run("doctor", "--models", "other").returncode == 0
    verified = run("doctor", "--models", "other", "--verify", "--json", check=False)
    assert verified.returncode == 1
    (finding,) = json.loads(verified.stdout)["findings"]
    assert "does not hold the bytes of its name" in finding["text"]
    path.write_bytes(raw[:1000])
    truncated = run("doctor", "--models", "other", check=False)
    assert truncated.returncode == 1 and "is truncated" in truncated.stdout


def test_doctor_removes_what_no_model_uses(run: Run, folder: Path) -> None:
    store = ModelStore(folder / "untidy")
    digest, _ = store.blobs.add(b"nobody mentions me")
    os.utime(store.blobs.path(digest), (1, 1))
    told = run("doctor", "--models", "untidy").stdout
    assert f"warning: {digest}: no model uses this blob" in told
    assert "fix: llm-engine doctor --fix" in told
    fixed = run("doctor", "--models", "untidy", "--fix").stdout
    assert f"removed: {digest.file_name}" in fixed and "nothing is wrong" in fixed
    forbidden = run("doctor", "--models", "untidy", "--fix", check=False, OLLAMA_NOPRUNE="1")
    assert forbidden.returncode == 1
    assert "error: OLLAMA_NOPRUNE forbids" in forbidden.stderr


def test_bundles_that_are_none(run: Run, folder: Path) -> None:
    run("export", "hello", "-o", "whole.tar")
    (folder / "cut.tar").write_bytes((folder / "whole.tar").read_bytes()[:100_000])
    (folder / "text.tar").write_text("no tar at all" * 100)
    for name in ("cut.tar", "text.tar"):
        done = run("import", name, "--models", "third", check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
    assert ModelStore(folder / "third").list() == []


def test_login_and_logout(run: Run, folder: Path) -> None:
    run("login", "reg.example", "-u", "me", "--password-stdin", stdin="secret\n")
    kept = folder / ".ollama" / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    run("logout", "reg.example")
    assert run("logout", "reg.example", check=False).returncode == 1
