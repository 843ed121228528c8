"""A network namespace joined to this one by a cable that can be cut."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from itertools import count

from tests.support.claims import claim

_numbers = count()


def available() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("iptables") is None:
        return False
    name = f"sc-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return False
    rules = ["ip", "netns", "exec", name, "iptables", "-P", "INPUT", "DROP"]
    works = subprocess.run(rules, capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], check=True)
    return works


def _free_network() -> int:
    """A /30 of 10.213.0.0/16 that no other test has, nor a cable that a killed one has left behind."""
    addresses = subprocess.run(["ip", "-o", "addr"], check=True, capture_output=True, text=True).stdout
    for _ in range(1000):
        net = random.randrange(16384)
        if f" {_address(net, 1)}/" not in addresses and claim("networks", net):
            return net
    raise AssertionError("no free network")


def _address(net: int, host: int) -> str:
    return f"10.213.{net // 64}.{net % 64 * 4 + host}"


class Namespace:
    """Address `far` is inside, `near` is ours. `cut` drops every packet, `mend` lets them pass again."""

    def __init__(self) -> None:
        number = next(_numbers)
        net = _free_network()
        self.name = f"sc{os.getpid()}n{number}"
        self.near, self.far = _address(net, 1), _address(net, 2)
        self._inner, self._outer = f"i{os.getpid()}{number}"[:14], f"o{os.getpid()}{number}"[:14]
        self._run("ip", "netns", "add", self.name)
        self._run("ip", "link", "add", self._outer, "type", "veth", "peer", "name", self._inner)
        self._run("ip", "link", "set", self._inner, "netns", self.name)
        self._run("ip", "addr", "add", f"{self.near}/30", "dev", self._outer)
        self._run("ip", "link", "set", self._outer, "up")
        self.inside("ip", "addr", "add", f"{self.far}/30", "dev", self._inner)
        self.inside("ip", "link", "set", self._inner, "up")
        self.inside("ip", "link", "set", "lo", "up")

    def _run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True)

    def inside(self, *argv: str) -> None:
        self._run("ip", "netns", "exec", self.name, *argv)

    def argv(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def cut(self) -> None:
        """Packets vanish, links stay up: as when a laptop leaves the network."""
        for chain in ("INPUT", "OUTPUT"):
            self.inside("iptables", "-P", chain, "DROP")

    def mend(self) -> None:
        for chain in ("INPUT", "OUTPUT"):
            self.inside("iptables", "-P", chain, "ACCEPT")

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
        subprocess.run(["ip", "link", "del", self._outer], capture_output=True)
