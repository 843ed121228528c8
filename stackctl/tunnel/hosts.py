"""From the name of a host to everything known about it: stack.yaml, then hosts.yaml, then ssh's own
knowledge.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from stackctl import config, paths
from stackctl.config import problems as findings
from stackctl.config import yaml_source
from stackctl.config.hosts import HostConfig
from stackctl.errors import ConfigError, UsageError
from stackctl.tunnel.destination import Destination, parse

_ENTRIES = TypeAdapter(dict[str, HostConfig])


class Host:
    def __init__(self, name: str, entry: HostConfig) -> None:
        self.name = name
        self.entry = entry
        if name in (".", ".."):
            # The name is that of a folder, too.
            raise UsageError(f"'{name}' cannot be the name of a host")
        self.destination: Destination = parse(entry.ssh or name)

    @property
    def tunnel_name(self) -> str:
        return self.name.replace("/", "_")


def hosts_file() -> Path:
    return paths.config_home() / "hosts.yaml"


def all_hosts(stack_file: str | None) -> dict[str, Host]:
    """Every host that has an entry; stack.yaml wins over hosts.yaml."""
    found = {name: Host(name, entry) for name, entry in _from_hosts_file().items()}
    found |= {name: Host(name, entry) for name, entry in _from_stack(stack_file).items()}
    return dict(sorted(found.items()))


def find(name: str, stack_file: str | None) -> Host:
    """An entry of that name, or else the name as an ssh destination."""
    if name.startswith("-"):
        parse(name)  # says why not
    known = all_hosts(stack_file)
    return known[name] if name in known else Host(name, HostConfig())


def in_stack_here(name: str) -> bool:
    """Whether the entry is in the stack file of this folder, which nobody has named."""
    return name in _from_stack(None)


def _from_stack(stack_file: str | None) -> dict[str, HostConfig]:
    # A laptop usually has no stack of its own: no file there is no error, unless one was named.
    if stack_file is None and not Path("stack.yaml").exists():
        return {}
    return dict(config.load(stack_file).hosts)


def _from_hosts_file() -> dict[str, HostConfig]:
    path = hosts_file()
    if not path.exists():
        return {}
    source = yaml_source.read(path)
    try:
        found = _ENTRIES.validate_python(
            {str(name): body or {} for name, body in source.data.items()}, context={"base": path.parent}
        )
    except ValidationError as error:
        problems = findings.explain(error, dict[str, HostConfig], source.origins)
        raise ConfigError(f"{path} is not valid", problems=problems) from None
    return found


def pick_services(available: dict[str, int], wanted: tuple[str, ...], host: str) -> dict[str, int]:
    """The services asked for by name, or all of them."""
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise UsageError(
            f"'{unknown[0]}' is not a service that {host} offers "
            f"(it has {', '.join(sorted(available)) or 'none'})",
            fix=f"stackctl tunnel up {host} {' '.join(sorted(available))}".rstrip(),
        )
    return {name: available[name] for name in (wanted or tuple(available))}
