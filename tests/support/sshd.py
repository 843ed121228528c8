"""A real OpenSSH server for tests: its own keys, config and port, gone with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port

__all__ = ["SSHD", "Sshd", "free_port", "keygen", "public"]

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "", comment: str = "test") -> Path:
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", str(path)]
    if kind == "rsa":
        argv += ["-b", "2048"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def public(path: Path) -> str:
    return Path(f"{path}.pub").read_text().strip()


@dataclass
class Sshd:
    """Start with `start()`; `freeze` and `thaw` act on the listener and on every session."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    options: dict[str, str] = field(default_factory=dict)
    key_types: tuple[str, ...] = ("ed25519",)
    netns: str | None = None
    program: str | None = SSHD  # its name is the name of its PAM service
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.port = self.port or free_port(self.host)
        self.user = os.environ.get("USER") or "root"
        self.client_key = self.folder / "id_ed25519"
        if not self.client_key.exists():
            keygen(self.client_key)
        for kind in self.key_types:
            if not self.host_key(kind).exists():
                keygen(self.host_key(kind), kind)
        self.authorize(public(self.client_key))
        self.write_known_hosts()

    def host_key(self, kind: str = "ed25519") -> Path:
        return self.folder / f"host_{kind}"

    @property
    def authorized_keys(self) -> Path:
        return self.folder / "authorized_keys"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def authorize(self, *lines: str) -> None:
        self.authorized_keys.write_text("".join(f"{line}\n" for line in lines))
        self.authorized_keys.chmod(0o600)

    def host_line(self, kind: str = "ed25519", name: str | None = None) -> str:
        key = " ".join(public(self.host_key(kind)).split()[:2])
        return f"{name or f'[{self.host}]:{self.port}'} {key}"

    def write_known_hosts(self, *lines: str) -> None:
        lines = lines or tuple(self.host_line(kind) for kind in self.key_types)
        self.known_hosts.write_text("".join(f"{line}\n" for line in lines))

    def write_config(self) -> Path:
        options = {
            "Port": str(self.port),
            "ListenAddress": self.host,
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.authorized_keys),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "PrintMotd": "no",
            "AcceptEnv": "LANG",
            "LogLevel": "VERBOSE",
            "MaxStartups": "500:30:1000",
            "Subsystem": "sftp internal-sftp",
            **self.options,
        }
        lines = [f"HostKey {self.host_key(kind)}" for kind in self.key_types]
        lines += [f"{key} {value}" for key, value in options.items()]
        path = self.folder / "sshd_config"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self) -> Sshd:
        assert self.program, "openssh-server is not installed"
        Path("/run/sshd").mkdir(
            exist_ok=True
        )  # the privilege separation folder a packaged service would make
        argv = [self.program, "-D", "-e", "-f", str(self.write_config())]
        if self.netns:
            argv = ["ip", "netns", "exec", self.netns, *argv]
        with open(self.folder / "sshd.log", "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            if "Server listening" in self.log():
                return self
            time.sleep(0.01)
        raise AssertionError("sshd did not start: " + self.log())

    def log(self) -> str:
        return (self.folder / "sshd.log").read_text(errors="replace")

    def pids(self) -> list[int]:
        """The listener and all its descendants."""
        if self.process is None:
            return []
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                queue += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def signal_all(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        self.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal_all(signal.SIGCONT)

    def drop_sessions(self) -> None:
        """Kill the sessions, keep listening."""
        for pid in self.pids()[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if self.process is not None:
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None
            self.wait_port_free()
            (self.folder / "sshd.log").unlink()

    def wait_port_free(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            with socket.socket(family) as sock:
                if sock.connect_ex((self.host, self.port)) != 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"port {self.port} stays open")

    def ssh_config(self, alias: str = "box", *lines: str) -> Path:
        """A client config file that knows this server under `alias`."""
        path = self.folder / "ssh_config"
        body = [
            f"Host {alias}",
            f"    HostName {self.host}",
            f"    Port {self.port}",
            f"    User {self.user}",
            f"    IdentityFile {self.client_key}",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {self.known_hosts}",
            "    GlobalKnownHostsFile none",
            "    StrictHostKeyChecking yes",
            *(f"    {line}" for line in lines),
        ]
        path.write_text("\n".join(body) + "\n")
        return path
