"""Renders the services as supervised local processes: `processes.yaml`, read by `stackctl.runtime.local`.

The same promises as for containers: loopback unless exposed, a health check on every service, secrets by
file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from stackctl import paths
from stackctl.config import StackConfig
from stackctl.config.service import Service
from stackctl.errors import ConfigError
from stackctl.render import monitoring, policy, proxy, webui
from stackctl.render.facts import Facts
from stackctl.render.limits import memory_limits
from stackctl.render.rendered import Rendered

Builder = Callable[[StackConfig, Facts], dict[str, Any]]

_IN_CONTAINER = "/run/secrets/"

NEEDS = {
    "engine": ("llm-engine", "make setup"),
    "webui": ("open-webui", "pip install open-webui (Python 3.11 or 3.12) and put open-webui on the PATH"),
    "proxy": ("caddy", "apt-get install caddy"),
    "prometheus": ("prometheus", "apt-get install prometheus"),
}


def render_processes(config: StackConfig, facts: Facts) -> Rendered:
    services: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for name, service in config.services.enabled().items():
        if name not in NEEDS:
            raise ConfigError(
                f"services.{name} needs the docker runtime: it comes as an image", fix="set runtime: docker"
            )
        program, fix = NEEDS[name]
        if program not in facts.programs:
            raise ConfigError(
                f"services.{name} needs the program {program}, which is not on the PATH", fix=fix
            )
        if service.volumes:
            raise ConfigError(
                f"services.{name}.volumes: a local process sees the host's folders as they are",
                fix="remove the volumes, or set runtime: docker",
            )
        services[name] = _common(config, facts, name, service) | _BUILDERS[name](config, facts)
        services[name]["environment"] |= service.environment
        _place_secrets(config.name, name, services[name])
        if service.healthcheck:
            services[name]["health"] = {"argv": list(service.healthcheck)}
    if config.services.proxy.enabled:
        files["Caddyfile"] = proxy.caddyfile(config, local=True)
        services["proxy"]["files_digest"] = hashlib.sha256(files["Caddyfile"].encode()).hexdigest()
    if config.services.prometheus.enabled:
        engine, own = config.services.engine.port, config.services.prometheus.port
        found = monitoring.prometheus_files(config, engine=f"127.0.0.1:{engine}", own=f"127.0.0.1:{own}")
        files |= found
        services["prometheus"]["files_digest"] = hashlib.sha256("".join(found.values()).encode()).hexdigest()
    policy.enforce_processes({"services": services}, config)
    for body in services.values():
        body["hash"] = service_hash(body)
    document = {"version": 1, "name": config.name, "services": services}
    text = json.dumps(document, indent=2) + "\n"  # JSON is YAML, and the supervisor reads it without PyYAML
    secrets = tuple(sorted({secret for body in services.values() for secret in body["secrets"]}))
    return Rendered(
        config.name,
        "local",
        document,
        {"processes.yaml": text, **files},
        {name: body["argv"][0] for name, body in services.items()},
        {},
        secrets,
        tuple(sorted({folder for body in services.values() for folder in body.pop("folders", [])})),
        notes=tuple(_notes(config, facts)),
    )


def _notes(config: StackConfig, facts: Facts) -> list[str]:
    notes = []
    if facts.gpu.fell_back:
        notes.append(f"no GPU: the engine runs on the CPU ({facts.gpu.reason})")
    if config.expose == "lan":
        notes.append("services listen on every address of this host (expose: lan)")
        notes += webui.notes(config)
    return notes


def _gpu_environment(facts: Facts) -> dict[str, str]:
    if not facts.gpu.visible:
        return {}
    variable = "ROCR_VISIBLE_DEVICES" if facts.gpu.mode == "rocm" else "CUDA_VISIBLE_DEVICES"
    return {variable: ",".join(facts.gpu.visible)}


def service_hash(body: dict[str, Any]) -> str:
    settled = {key: value for key, value in body.items() if key not in ("hash", "folders")}
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()


def _common(config: StackConfig, facts: Facts, name: str, service: Service) -> dict[str, Any]:
    limits, ports = service.limits, config.services.ports_of(name)
    return {
        "environment": {},
        "secrets": list(service.secrets),
        "secret_environment": {},
        "ports": [{"host_ip": config.bind_address, "port": port} for port in ports],
        "limits": {
            "memory": memory_limits(config, facts.memory)[name],
            "cpus": limits.cpus,
            "pids": limits.pids,
        },
        "start_grace": service.start_grace,
        "stop_grace": 30,
    }


def _engine(config: StackConfig, facts: Facts) -> dict[str, Any]:
    engine = config.services.engine
    models = engine.models_dir or config.data_path / "models"
    argv = [facts.programs["llm-engine"], "serve", "--host", config.bind_address, "--port", str(engine.port)]
    return {
        "argv": [*argv, "--models", str(models)],
        "environment": {
            "OLLAMA_MODELS": str(models),
            "OLLAMA_HOST": f"{config.bind_address}:{engine.port}",
            **_gpu_environment(facts),
        },
        "health": {"http": f"http://127.0.0.1:{engine.port}/api/version"},
        "folders": [] if engine.models_dir else [str(models)],
    }


def _webui(config: StackConfig, facts: Facts) -> dict[str, Any]:
    service = config.services.webui
    data = str(config.data_path / "webui")
    environment = webui.environment(config, engine_url=config.url("engine"), data=data)
    argv = [facts.programs["open-webui"], "serve", "--host", config.bind_address, "--port", str(service.port)]
    return {
        "argv": argv,
        "environment": environment,
        "secrets": [*service.secrets, *webui.SECRETS.values()],
        "secret_environment": dict(webui.SECRETS),
        "health": {"http": f"http://127.0.0.1:{service.port}/health"},
        "folders": [data],
    }


def _proxy(config: StackConfig, facts: Facts) -> dict[str, Any]:
    data = str(config.data_path / "proxy")
    service = config.services.proxy
    return {
        "argv": [
            facts.programs["caddy"],
            "run",
            "--adapter",
            "caddyfile",
            "--config",
            "{generation}/Caddyfile",
        ],
        "environment": {"XDG_DATA_HOME": data, "XDG_CONFIG_HOME": data, "HOME": data},
        "secrets": [*service.secrets, *proxy.secrets(config)],
        "secret_environment": {"STACKCTL_PROXY_KEY": proxy.KEY_SECRET} if proxy.secrets(config) else {},
        "health": {"tcp": service.port},
        "folders": [data],
    }


def _prometheus(config: StackConfig, facts: Facts) -> dict[str, Any]:
    service, data = config.services.prometheus, str(config.data_path / "prometheus")
    argv = [
        facts.programs["prometheus"],
        "--config.file={generation}/prometheus.yml",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={round(service.retention)}s",
        f"--storage.tsdb.retention.size={service.retention_size}B",
        f"--web.listen-address={config.bind_address}:{service.port}",
    ]
    return {
        "argv": argv,
        "health": {"http": f"http://127.0.0.1:{service.port}/-/ready"},
        "folders": [data],
    }


_BUILDERS: dict[str, Builder] = {
    "engine": _engine,
    "webui": _webui,
    "proxy": _proxy,
    "prometheus": _prometheus,
}


def _place_secrets(stack: str, name: str, body: dict[str, Any]) -> None:
    """A process sees the host as it is: what a container finds in /run/secrets lies in the state folder."""
    for variable, value in body["environment"].items():
        if not value.startswith(_IN_CONTAINER):
            continue
        secret = value.removeprefix(_IN_CONTAINER)
        if secret not in body["secrets"]:
            raise ConfigError(
                f"services.{name}.environment.{variable}: {value} is not given to this service",
                fix=f"add {secret} to the secrets of services.{name}",
            )
        body["environment"][variable] = str(paths.state_dir(stack) / "secrets" / secret)
