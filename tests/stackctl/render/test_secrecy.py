"""What counts as a secret in clear, in both directions; and that neither runtime lets one through."""

from __future__ import annotations

from typing import Any

import pytest

from stackctl.config import StackConfig
from stackctl.errors import ConfigError
from stackctl.redact import redacted
from stackctl.render import Facts, render
from stackctl.render.secrecy import why_secret

SECRETS = {
    "DATABASE_URL": "postgres://user:pw@db/x",
    "REDIS_URL": "redis://:hunter2@redis:6379/0",
    "HTTP_PROXY": "http://me:pw@proxy:3128",
    "MYSQL": "me:pw@tcp(db:3306)/x",
    "DSN": "host=db user=me password=hunter2",
    "SETTINGS": '{"api_key": "abcdefghijk", "max_tokens": 5}',
    "HEADERS": "Authorization: Bearer abcdefghijkl",
    "APIKEY": "abc123def",
    "OPENAI_APIKEY": "abcdefgh",
    "openaiApiKey": "abcdefg",
    "API_KEY_2": "hunter2hunter2",
    "API_KEY2": "hunter2hunter2",
    "LLM_ENGINE_API_KEYS": "alpha,beta",
    "DB_PASSWORD": "123456",
    "MYSQL_PWD": "x1y2",
    "PASSPHRASE": "correct horse",
    "SECRET_KEY_BASE": "abcdefghi",
    "TOKEN_GITHUB": "abcdefgh",
    "API_KEY_FILE": "hunter2hunter2",
    "PASSWORD_FILE": "hunter2",
    "HF_TOKEN_PATH": "abcdefghijk",
    "AWS_SECRET_ACCESS_KEY": "/JalrXUtnFEMI/K7MDENG",
    "EXTRA": "use hf_" + "a1B2" * 8,
    "NOTE": "-----BEGIN OPENSSH PRIVATE KEY-----",
}
SETTINGS = {
    "TOKENIZER": "bpe",
    "TOKENIZERS_PARALLELISM": "false",
    "MAX_TOKENS": "4096",
    "TOKENS": "4096",
    "NUM_KEYS": "12",
    "KEYBOARD": "de",
    "KEYWORDS": "a b",
    "MONKEY": "banana",
    "COMPASS": "north",
    "SECRETARY": "Jane",
    "BYPASS_MODEL_ACCESS_CONTROL": "true",
    "ENABLE_PASSWORD_VALIDATION": "true",
    "TOKEN_TTL": "7d",
    "TOKEN_TYPE": "bearer",
    "JWT_EXPIRES_IN": "7d",
    "PUBLIC_KEY": "ssh-ed25519 AAAA",
    "SORT_KEY": "name",
    "PWD": "/home/x",
    "HF_TOKEN": "/run/secrets/hf",
    "API_KEY_FILE": "/run/secrets/api_key",
    "PASSWORD_FILE": "/etc/Mine/pass.txt",
    "KEY_FILE": "./keys/a.pem",
    "SSL_KEY": "/etc/ssl/private/key.pem",
    "API_KEY": "",
    "DATABASE_URL": "postgres://db:5432/x",
    "GIT": "git@github.com:a/b.git",
    "SSH": "ssh://user@host:22/x",
    "NEXT": "http://h:80/?next=a@b",
    "TASK_MODEL_PARAMS": '{"think": false, "max_tokens": 256}',
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_clear_is_seen_and_never_repeated(name: str) -> None:
    why = why_secret(name, SECRETS[name])
    assert why and SECRETS[name] not in why


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_no_secret(name: str) -> None:
    assert why_secret(name, SETTINGS[name]) is None


def rendered(runtime: Any, **engine: Any) -> Any:
    config = StackConfig.model_validate({"name": "t", "services": {"engine": engine}})
    return render(config, Facts(runtime, programs={"llm-engine": "/opt/llm-engine"})).document


@pytest.mark.parametrize("runtime", ["docker", "local"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "APIKEY", "API_KEY_FILE"])
def test_no_runtime_takes_a_secret_in_the_environment(runtime: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rendered(runtime, environment={name: SECRETS[name]})
    assert f"environment variable {name}" in "".join(caught.value.problems)
    assert SECRETS[name] not in str(caught.value.problems)
    # Shown as it is: what looks like an assignment would be taken for a secret itself.
    assert caught.value.fix and "stackctl secrets set" in redacted(caught.value.fix) == caught.value.fix
    assert redacted(str(caught.value.problems)) == str(caught.value.problems)


@pytest.mark.parametrize("runtime", ["docker", "local"])
def test_no_runtime_takes_a_secret_in_a_health_check(runtime: str) -> None:
    with pytest.raises(ConfigError, match="policy") as caught:
        rendered(runtime, healthcheck=["curl", "-H", "Authorization: Bearer abcdefghijkl", "http://x/"])
    assert "its health check holds a bearer token" in "".join(caught.value.problems)


def test_a_local_process_is_told_where_its_secret_really_lies() -> None:
    setting = {"HF_TOKEN_FILE": "/run/secrets/hf"}
    body = rendered("local", environment=setting, secrets=["hf"])["services"]["engine"]
    assert body["environment"]["HF_TOKEN_FILE"].endswith("/stackctl/t/secrets/hf")
    with pytest.raises(ConfigError, match="not given to this service") as caught:
        rendered("local", environment=setting)
    assert caught.value.fix == "add hf to the secrets of services.engine"
