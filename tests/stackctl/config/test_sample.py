"""The sample, the reference and the schema come from the model, and are right."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from stackctl.config import StackConfig, load, sample


def test_the_starter_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(sample.starter("lab", "local"))
    config = load(str(path))
    assert (config.name, config.runtime) == ("lab", "local")


def test_every_key_is_in_the_sample_and_the_reference() -> None:
    text, table = sample.sample(), sample.reference()
    for key in StackConfig.model_fields:
        assert f"# {key}:" in text
        assert f"`{key}" in table


def test_the_schema_takes_what_the_loader_takes_and_refuses_unknown_keys(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(sample.json_schema())
    good = yaml.safe_load(sample.starter("lab", "auto"))
    assert not list(validator.iter_errors(good))
    assert not list(validator.iter_errors({"services": {"engine": {"limits": {"memory": "4g"}}}}))
    assert list(validator.iter_errors({"services": {"engine": {"prot": 1}}}))


@pytest.mark.parametrize("key", ["services.engine.port", "gpu.mode", "models[].digest", "expose"])
def test_the_reference_names_nested_keys(key: str) -> None:
    assert f"| `{key}` |" in sample.reference()


def test_the_reference_page_is_not_behind() -> None:
    page = Path(__file__).resolve().parents[3] / "docs/configuration.md"
    assert page.read_text().endswith(sample.reference()), "run `make docs`"
