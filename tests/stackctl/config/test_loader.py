"""stack.yaml as people write it: right, wrong in every way at once, laid over, and filled in from the
environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.config import load, load_with_origins
from stackctl.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STACKCTL_FILE", "STACKCTL_OVERLAY"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str, name: str = "stack.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / "stack.yaml")


def problems(path: str, overlay: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overlay)
    assert caught.value.exit_code == 2
    return caught.value.problems or [caught.value.what]


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""))
    assert config.name == "ai"
    assert list(config.services.enabled()) == ["engine"]
    assert config.bind_address == "127.0.0.1"
    assert config.url("engine") == "http://127.0.0.1:11434"


def test_every_problem_is_reported_at_once_with_line_path_and_suggestion(tmp_path: Path) -> None:
    text = """\
name: Wrong Name
expose: lann
services:
  engine:
    prot: 11
    port: 99999
    limits: {memory: 4x}
models: [a, {name: b, digst: 1}]
"""
    found = problems(write(tmp_path, text))
    assert len(found) == 6
    joined = "\n".join(found)
    assert "stack.yaml:1: name:" in joined
    assert "stack.yaml:2: expose: 'lann' is not one of 'loopback' or 'lan' (did you mean 'lan'?)" in found
    assert "stack.yaml:5: services.engine.prot: unknown key (did you mean 'port'?)" in found
    assert any(line.startswith("stack.yaml:6: services.engine.port:") and "99999" in line for line in found)
    assert "stack.yaml:7: services.engine.limits.memory: '4x' is not a size; write it like" in joined
    assert "stack.yaml:8: models.1.digst: unknown key (did you mean 'digest'?)" in found


def test_yaml_says_what_it_looks_like(tmp_path: Path) -> None:
    text = "services: {engine: {environment: {A: no, B: 22:22, C: 010, D: true, E: 7}}}"
    environment = load(write(tmp_path, text)).services.engine.environment
    assert environment == {"A": "no", "B": "22:22", "C": "010", "D": "true", "E": "7"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "stack.yaml:2: name: written twice"),
        ("- a\n- b\n", "must hold keys and values"),
        ("name: [a\n", "stack.yaml:2: expected ',' or ']'"),
        (
            "name: ${NOT_SET_ANYWHERE}\n",
            "stack.yaml:1: name: environment variable NOT_SET_ANYWHERE is not set",
        ),
        ("name: a${b-c}\n", "is not a reference"),
        ("services: {engine: {port: 3000}, webui: {enabled: true}}", "engine and webui both have port 3000"),
        ("models: [a, 'a:latest']", "'a:latest' is listed twice"),
        ("services: {proxy: {auth: mtls}}", "auth: mtls and client_ca go together"),
        ("name: \xff\n", "name"),
    ],
)
def test_wrong_files_are_named_by_their_line(tmp_path: Path, text: str, says: str) -> None:
    assert says in "\n".join(problems(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "says", "fix"),
    [
        (
            "name: a\n services: {}\n",
            "stack.yaml:2: mapping values are not allowed here: services: {}",
            "quote",
        ),
        ("services:\n  engine: {}\n webui: {}\n", "stack.yaml:3: expected <block end>", "indentation"),
        ("services: {engine: {port: 1}\nname: a\n", "stack.yaml:2: expected ',' or '}'", "close every"),
        ("services:\n\tengine: {}\n", "stack.yaml:2: found character", "not tabs"),
        ('name: a\ndata_dir: "\x01"\n', "stack.yaml:2: the character U+0001 may not be", "take it out"),
    ],
)
def test_yaml_that_cannot_be_read_shows_the_line_and_what_to_do(
    tmp_path: Path, text: str, says: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert says in caught.value.problems[0]
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name: Wrong Name",
            "name: must be lower-case letters, digits and '-', 40 at most, not 'Wrong Name'",
        ),
        ("models: [7]", "models.0: must be a name or {name: …}, not 7"),
        (
            "services: {engine: {environment: {A: [1]}}}",
            "services.engine.environment.A: input should be a valid string, not [1]",
        ),
        (
            "services: {webui: {secrets: [Bad-Name]}}",
            "secrets.0: must be lower-case letters, digits and '_', with a letter first, not 'Bad-Name'",
        ),
    ],
)
def test_a_wrong_value_is_shown_with_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    (found,) = problems(write(tmp_path, text))
    assert says in found


def test_devices_may_be_written_as_numbers(tmp_path: Path) -> None:
    config = load(write(tmp_path, "gpu: {devices: [0, GPU-1]}"))
    assert config.gpu.devices == ("0", "GPU-1")
    assert "gpu.devices.0" in problems(write(tmp_path, "gpu: {devices: [true]}"))[0]


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_bytes(b"name: \xff\xfe")
    assert "not UTF-8" in problems(str(tmp_path / "stack.yaml"))[0]


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "stack.yaml"))
    assert caught.value.fix == "stackctl init"


def test_overlay_merges_keys_replaces_lists_and_null_takes_away(tmp_path: Path) -> None:
    write(tmp_path, "models: [c]\nservices: {engine: {port: 2, image: null}}", "stack.night.yaml")
    path = write(
        tmp_path, "name: n\nmodels: [a, b]\nservices: {engine: {port: 1, image: x, start_grace: 9s}}"
    )
    loaded = load_with_origins(path, "night")
    engine = loaded.config.services.engine
    assert [model.name for model in loaded.config.models] == ["c"]
    assert (engine.port, engine.start_grace) == (2, 9.0)
    assert engine.image.startswith("llm-engine:")
    assert str(loaded.origins[("services", "engine", "port")]) == "stack.night.yaml:2"
    assert str(loaded.origins[("services", "engine", "start_grace")]) == "stack.yaml:3"
    assert ("services", "engine", "image") not in loaded.origins


def test_an_overlay_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, "", "stack.day.yaml")
    assert "stack.day.yaml" in problems(write(tmp_path, ""), "dya")[0]


def test_environment_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_PORT", "12000")
    monkeypatch.delenv("ENGINE_IMAGE", raising=False)
    settings = 'port: "${ENGINE_PORT}", image: "${ENGINE_IMAGE:-a:1}", environment: {P: "a$$b"}'
    text = f"services: {{engine: {{{settings}}}}}"
    loaded = load_with_origins(write(tmp_path, text))
    engine = loaded.config.services.engine
    assert (engine.port, engine.image, engine.environment["P"]) == (12000, "a:1", "a$b")
    assert str(loaded.origins[("services", "engine", "port")]) == "stack.yaml:1 ($ENGINE_PORT)"


def test_paths_are_relative_to_the_stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "data_dir: ./here")
    monkeypatch.chdir("/")
    assert load(path).data_path == tmp_path / "here"


@pytest.mark.parametrize("name", ["LLM_ENGINE_KEYS_FILE", "LLM_ENGINE_TLS_CERT", "LLM_ENGINE_TLS_KEY"])
def test_an_engine_that_its_own_stack_could_not_reach_is_refused(tmp_path: Path, name: str) -> None:
    text = f"services: {{engine: {{environment: {{{name}: /somewhere}}}}}}\n"
    (found,) = problems(write(tmp_path, text))
    assert name in found and "services.proxy" in found
