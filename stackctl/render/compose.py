"""Renders the services as a compose file: one Jinja template each in `compose/`, then parsed, then policy-
checked.

What is written is the parsed document again, so that the file that runs is the one that was checked. `parts`
holds what differs from service to service; a new service is a template, a row here, and a model in
`config.services`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stackctl import paths
from stackctl.config import StackConfig
from stackctl.config.service import Mount, Service
from stackctl.config.services import Certificate
from stackctl.render import gpu_sharing, monitoring, policy, proxy, templates, webui
from stackctl.render.facts import Facts
from stackctl.render.hardening import hardening_of
from stackctl.render.limits import memory_limits
from stackctl.render.rendered import Rendered

# The C versions, where PyYAML has them: ten times as fast, and the same safe subset.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Part:
    """What is peculiar to one service."""

    ports: tuple[tuple[int, int], ...]  # published, inside
    environment: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)  # path inside the container -> text


def render_compose(config: StackConfig, facts: Facts) -> Rendered:
    jinja = templates.environment()
    bodies, secrets, folders = list[str](), set[str](), list[str]()
    files: dict[str, str] = {}
    memory, sharing = memory_limits(config, facts.memory), gpu_sharing.of(config, facts.gpu)
    for name, service in config.services.enabled().items():
        part = PARTS[name](config, facts)
        names = (*service.secrets, *part.secrets)
        mounts = [*part.mounts, *service.volumes]
        for target, text in part.files.items():
            file = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{Path(target).name}"
            files[file] = text
            mounts.append(Mount(source=paths.state_dir(config.name) / "files" / file, target=target))
        body = jinja.get_template(f"{name}.yaml.j2").render(
            service=service,
            facts=facts,
            image=facts.pins.get(service.image, service.image),
            hardening=hardening_of(name),
            memory=memory[name],
            networks=["back", "edge"],
            bind=config.bind_address,
            ports=part.ports,
            environment=_dollars(
                {
                    **part.environment,
                    **_gpu_environment(name, facts),
                    **(sharing.environment(name) if sharing else {}),
                    **service.environment,
                }
            ),
            labels={"dev.stackctl.stack": config.name, **(sharing.label(name) if sharing else {})},
            secrets=sorted(set(names)),
            mounts=[_as_written(mount) for mount in mounts],
        )
        bodies.append(body.rstrip())
        secrets |= set(names)
        folders += part.folders
    text = jinja.get_template("stack.yaml.j2").render(
        name=config.name,
        services="\n".join(bodies),
        secrets={name: str(paths.state_dir(config.name) / "secrets" / name) for name in sorted(secrets)},
    )
    document = yaml.load(text, Loader=_LOADER)
    policy.enforce(document, config)
    header = f"# Rendered by stackctl for stack {config.name}. Edit the stack file, not this.\n"
    main = header + yaml.dump(document, Dumper=_DUMPER, sort_keys=False, width=110)
    return Rendered(
        config.name,
        "docker",
        document,
        {"compose.yaml": main, **files},
        {name: service.image for name, service in config.services.enabled().items()},
        {service.image: facts.pins.get(service.image, "") for service in config.services.enabled().values()},
        tuple(sorted(secrets)),
        tuple(folders),
        tuple(_notes(config, facts)),
    )


def _as_written(mount: Mount) -> dict[str, Any]:
    return {
        "source": str(mount.source).replace("$", "$$"),
        "target": mount.target.replace("$", "$$"),
        "read_only": mount.read_only,
    }


def _dollars(environment: dict[str, str]) -> dict[str, str]:
    """Compose would fill in `$NAME` once more: what the stack file says is already final."""
    return {name: value.replace("$", "$$") for name, value in environment.items()}


def _gpu_environment(name: str, facts: Facts) -> dict[str, str]:
    if name not in ("engine", "comfyui"):
        return {}
    if facts.gpu.visible:
        return {"ROCR_VISIBLE_DEVICES": ",".join(facts.gpu.visible)}
    if facts.gpu.mode != "nvidia-runtime":
        return {}
    return {
        "NVIDIA_VISIBLE_DEVICES": ",".join(facts.gpu.devices) or "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def _notes(config: StackConfig, facts: Facts) -> list[str]:
    notes = []
    if facts.gpu.fell_back:
        notes.append(f"no GPU: the engine runs on the CPU ({facts.gpu.reason})")
    if sharing := gpu_sharing.of(config, facts.gpu):
        notes.append(f"{sharing}; {sharing.advice}")
    if config.expose == "lan":
        notes.append("ports are published on every address of this host (expose: lan)")
        notes += webui.notes(config)
    return notes


def _engine(config: StackConfig, facts: Facts) -> Part:
    engine = config.services.engine
    models = engine.models_dir or config.data_path / "models"
    return Part(
        ports=((engine.port, 11434),),
        environment={"OLLAMA_HOST": "0.0.0.0:11434", "OLLAMA_MODELS": "/models", "HOME": "/tmp"},
        mounts=(Mount(source=models, target="/models", read_only=False),),
        folders=() if engine.models_dir else (str(models),),
    )


def _webui(config: StackConfig, facts: Facts) -> Part:
    folder = config.data_path / "webui"
    return Part(
        ports=((config.services.webui.port, 8080),),
        environment=webui.environment(config, engine_url="http://engine:11434", data="/data"),
        mounts=(Mount(source=folder, target="/data", read_only=False),),
        secrets=tuple(webui.SECRETS.values()),
        folders=(str(folder),),
    )


def _comfyui(config: StackConfig, facts: Facts) -> Part:
    folder = config.data_path / "comfyui"
    return Part(
        ports=((config.services.comfyui.port, 8188),),
        environment={"HOME": "/data"},
        mounts=(Mount(source=folder, target="/data", read_only=False),),
        folders=(str(folder),),
    )


def _proxy(config: StackConfig, facts: Facts) -> Part:
    service, folder = config.services.proxy, config.data_path / "proxy"
    mounts = [Mount(source=folder, target="/data", read_only=False)]
    if isinstance(service.tls, Certificate):
        mounts.append(Mount(source=service.tls.certificate, target="/tls/cert.pem"))
        mounts.append(Mount(source=service.tls.key, target="/tls/key.pem"))
    if service.client_ca is not None:
        mounts.append(Mount(source=service.client_ca, target="/tls/client-ca.pem"))
    return Part(
        ports=tuple((port, port) for port in config.services.ports_of("proxy")),
        environment={"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/data", "HOME": "/data"},
        mounts=tuple(mounts),
        secrets=tuple(proxy.secrets(config)),
        folders=(str(folder),),
        files={"/etc/caddy/Caddyfile": proxy.caddyfile(config, local=False)},
    )


def _prometheus(config: StackConfig, facts: Facts) -> Part:
    folder = config.data_path / "prometheus"
    found = monitoring.prometheus_files(config, engine="engine:11434", own="127.0.0.1:9090")
    return Part(
        ports=((config.services.prometheus.port, 9090),),
        mounts=(Mount(source=folder, target="/data", read_only=False),),
        folders=(str(folder),),
        files={f"/etc/prometheus/{name}": text for name, text in found.items()},
    )


def _grafana(config: StackConfig, facts: Facts) -> Part:
    folder = config.data_path / "grafana"
    found = monitoring.grafana_files(config, prometheus="http://prometheus:9090")
    return Part(
        ports=((config.services.grafana.port, 3000),),
        environment=dict(monitoring.GRAFANA_ENVIRONMENT),
        mounts=(Mount(source=folder, target="/data", read_only=False),),
        secrets=(monitoring.PASSWORD_SECRET,),
        folders=(str(folder),),
        files={f"/etc/grafana/{name}": text for name, text in found.items()},
    )


PARTS: dict[str, Callable[[StackConfig, Facts], Part]] = {
    "engine": _engine,
    "webui": _webui,
    "comfyui": _comfyui,
    "proxy": _proxy,
    "prometheus": _prometheus,
    "grafana": _grafana,
}


def service_of(config: StackConfig, name: str) -> Service:
    return config.services.enabled()[name]
