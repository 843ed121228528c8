"""What each secret is for, and what a new value of it would do: some cannot be changed by making one up.

One that stackctl made and that a service reads at each start can be rotated. One that a service reads only
while its database is new is settled by then: a new value would change a file, and no login. One that somebody
else issued means nothing to them when it is made up here.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackctl.config import StackConfig
from stackctl.errors import UsageError
from stackctl.render.monitoring import PASSWORD_SECRET
from stackctl.render.proxy import KEY_SECRET


@dataclass(frozen=True)
class Kind:
    made_here: bool
    on_rotate: str  # what a new value does
    settled_by: str | None = None  # file in the data folder: once it is there, the value is not read again
    instead: str | None = None


KINDS = {
    "webui_secret_key": Kind(True, "signs everyone out of the web UI"),
    KEY_SECRET: Kind(True, "clients of the proxy need the new key"),
    "webui_admin_password": Kind(
        True,
        "the first login has the new password",
        "webui/webui.db",
        "change it in the web UI (Settings, Account), and keep it: stackctl secrets set webui_admin_password",
    ),
    PASSWORD_SECRET: Kind(
        True,
        "the first login has the new password",
        "grafana/grafana.db",
        "change it in Grafana (Profile, Change password), and keep it: "
        f"stackctl secrets set {PASSWORD_SECRET}",
    ),
}
MADE_HERE = frozenset(name for name, kind in KINDS.items() if kind.made_here)
ISSUED = "issued by somebody else: a value made up here would not be known there"


def refusal(config: StackConfig, name: str) -> UsageError | None:
    """Why a new value would be of no use, and what helps; None when it can be rotated."""
    kind = KINDS.get(name)
    if kind is None:
        return UsageError(
            f"secret {name} cannot be rotated: it was {ISSUED}",
            fix=f"get a new one from where it came, then: stackctl secrets set {name}",
        )
    if kind.settled_by is not None and (config.data_path / kind.settled_by).exists():
        service = kind.settled_by.partition("/")[0]
        return UsageError(
            f"secret {name} cannot be rotated: {service} reads it only while it has no database, "
            "and it has one",
            fix=kind.instead,
        )
    return None


def on_rotate(config: StackConfig, name: str) -> str:
    """What `secrets rotate` does with it, for `secrets list`."""
    kind = KINDS.get(name)
    if kind is None:
        return "refused: not made by stackctl"
    return "refused: read at the first start only" if refusal(config, name) else kind.on_rotate


def rotatable(config: StackConfig, name: str) -> bool:
    return refusal(config, name) is None
