"""The sample, the reference and the schema come from the model, and are right."""

from __future__ import annotations

import itertools
from pathlib import Path

import jsonschema
import pytest
import yaml

from stackctl.config import StackConfig, load, sample, schema
from stackctl.errors import ConfigError

SCHEMA = schema.json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_starter_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(sample.starter("lab", "local"))
    config = load(str(path))
    assert (config.name, config.runtime) == ("lab", "local")


def test_the_sample_with_its_comments_taken_away_says_what_an_empty_file_says(tmp_path: Path) -> None:
    path, empty = tmp_path / "stack.yaml", tmp_path / "empty.yaml"
    path.write_text(
        "".join(line.removeprefix("# ") for line in sample.sample().splitlines(keepends=True)[1:])
    )
    empty.write_text("name: ai\n")
    assert load(str(path)) == load(str(empty))


def test_entries_of_lists_and_maps_are_shown_too(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in sample.sample().splitlines()[1:]]
    start = lines.index("hosts: {}")
    host = "\n".join(["hosts:", *(line.removeprefix("# ") for line in _entry(lines[start + 1 :]))])
    path = tmp_path / "stack.yaml"
    path.write_text(host.replace("NAME:", "box:", 1))
    assert load(str(path)).hosts["box"].interval == 15
    start = lines.index("models: []")
    assert _entry(lines[start + 1 :])[0] == "#   - name: (required)"


def _entry(lines: list[str]) -> list[str]:
    return list(itertools.takewhile(lambda line: line.startswith("#   "), lines))


def test_every_key_is_in_the_sample_and_the_reference() -> None:
    text, table = sample.sample(), sample.reference()
    for key in StackConfig.model_fields:
        assert f"\n# {key}:" in text
        assert f"`{key}" in table


def test_the_schema_takes_what_the_loader_takes_and_refuses_unknown_keys(tmp_path: Path) -> None:
    good = yaml.safe_load(sample.starter("lab", "auto"))
    assert not list(VALIDATOR.iter_errors(good))
    assert list(VALIDATOR.iter_errors({"services": {"engine": {"prot": 1}}}))
    assert list(VALIDATOR.iter_errors({"services": {"engine": {"port": "many"}}}))
    assert list(VALIDATOR.iter_errors({"health": {"timeout": 5}}))


TAKEN = (
    {"models": ["llama3.2:3b", {"name": "qwen3:8b", "resident": True}]},
    {"services": {"engine": {"environment": {"DEBUG": 1, "FAST": True, "NAME": "x"}}}},
    {"services": {"engine": {"limits": {"memory": "4g"}, "port": "${PORT:-11434}"}}},
    {"services": {"webui": {"enabled": "${WEBUI:-true}", "origin": "https://llm.example.org"}}},
    {"backup": {"to": ["/mnt/b", {"sftp": "me@host:/backups"}]}},
    {"health": {"recheck": 0, "timeout": "5s", "checks": {"disk": {"warn": "10%"}}}},
    {"hosts": {"box": {"forward": {"webui": 3000}}}},
    {"gpu": None, "models": None, "services": {"engine": None, "webui": {"limits": {"memory": None}}}},
    {"notify": {"channels": [{"type": "ntfy", "topic": "alarms", "timeout": "10s"}]}},
    {"runtime": "${RUNTIME:-local}"},
)


@pytest.mark.parametrize("document", TAKEN, ids=str)
def test_loader_and_schema_take_what_people_write(document: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(yaml.safe_dump(document))
    load(str(path))
    assert not list(VALIDATOR.iter_errors(document))


def test_the_schema_takes_its_own_defaults() -> None:
    refused = []

    def look(part: object) -> None:
        if isinstance(part, dict):
            if "default" in part and "anyOf" in part:
                whole = {**part, "$defs": SCHEMA["$defs"]}
                if list(jsonschema.Draft202012Validator(whole).iter_errors(part["default"])):
                    refused.append(part)
            for value in part.values():
                look(value)
        elif isinstance(part, list):
            for value in part:
                look(value)

    look(SCHEMA)
    assert refused == []


def test_what_is_left_empty_is_the_default(tmp_path: Path) -> None:
    path, empty = tmp_path / "stack.yaml", tmp_path / "empty.yaml"
    path.write_text("name: t\ngpu:\nmodels:\nservices:\n  engine:\n  webui:\n    limits:\n      memory:\n")
    empty.write_text("name: t\n")
    assert load(str(path)) == load(str(empty))
    path.write_text("name: t\nservices:\n  engine:\n    environment:\n      TOKEN:\n")
    with pytest.raises(ConfigError) as refused:  # not a key of ours: what it was meant to be is not known
        load(str(path))
    assert "services.engine.environment.TOKEN" in refused.value.problems[0]


def test_a_reference_to_an_empty_variable_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text("services: {engine: {environment: {A: '${X}', B: '${X:-other}'}}}\n")
    monkeypatch.setenv("X", "")
    assert load(str(path)).services.engine.environment == {"A": "", "B": "other"}
    monkeypatch.delenv("X")
    with pytest.raises(ConfigError) as refused:
        load(str(path))
    assert "environment variable X is not set" in refused.value.problems[0]


@pytest.mark.parametrize("key", ["services.engine.port", "gpu.mode", "models[].digest", "expose"])
def test_the_reference_names_nested_keys(key: str) -> None:
    assert f"| `{key}` |" in sample.reference()


def test_the_reference_page_is_not_behind() -> None:
    page = Path(__file__).resolve().parents[3] / "docs/configuration.md"
    assert page.read_text().endswith(sample.reference()), "run `make docs`"
