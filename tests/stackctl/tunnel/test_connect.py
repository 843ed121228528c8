"""Connecting as the user's ssh configuration says, against real OpenSSH servers."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pty
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization

from stackctl.errors import ConfigError, UsageError
from stackctl.tunnel import connect as connecting
from stackctl.tunnel import dial, knownhosts
from stackctl.tunnel.connect import Connector
from stackctl.tunnel.destination import parse
from stackctl.tunnel.errors import AuthError, HostKeyError, PermanentTunnelError, TunnelError
from stackctl.tunnel.needs import openssh_needs
from stackctl.tunnel.sshconfig import resolve
from tests.stackctl.tunnel.conftest import MakeTunnel, Service, echo, eventually
from tests.stackctl.tunnel.test_forwarding import open_files
from tests.support.sshd import SSHD, Sshd, keygen, public

pytestmark = pytest.mark.peer


def connect(config: Path, alias: str = "box", ask: object = None) -> None:
    session = Connector(parse(alias), config, ask).connect()  # type: ignore[arg-type]
    assert session.transport.is_authenticated()
    before = threading.active_count()
    session.close()
    assert threading.active_count() <= before


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = Path(f"/tmp/stackctl-agent-{os.getpid()}-{threading.get_ident()}")  # a socket path must be short
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield path
    process.terminate()
    process.wait()
    process.stdout.close()
    path.unlink(missing_ok=True)


def add_to_agent(agent: Path, *words: str | Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", *map(str, words)], env=environment, check=True, stdin=subprocess.DEVNULL)


def test_a_key_file(sshd: Sshd) -> None:
    connect(sshd.ssh_config())


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    key = keygen(tmp_path / kind, kind)
    sshd.authorize(public(key))
    sshd.client_key = key
    connect(sshd.ssh_config())


def test_an_agent(sshd: Sshd, agent: Path, tmp_path: Path) -> None:
    key = keygen(tmp_path / "agent_key")
    add_to_agent(agent, key)
    key.unlink()  # the agent alone has it now; the .pub file names it
    sshd.authorize(public(key))
    sshd.client_key = key
    connect(sshd.ssh_config("box", f"IdentityAgent {agent}"))
    with pytest.raises(AuthError):
        connect(sshd.ssh_config("box", "IdentityAgent none"))


def test_the_way_to_the_agent_is_closed_after_the_login(sshd: Sshd, agent: Path, tmp_path: Path) -> None:
    add_to_agent(agent, sshd.client_key)
    connector = Connector(parse("box"), sshd.ssh_config("box", f"IdentityAgent {agent}"), None)
    connector.connect().close()
    gc.disable()  # it would close them some day
    try:
        before = open_files()
        for _ in range(3):
            connector.connect().close()
        assert open_files() <= before
    finally:
        gc.enable()


def test_identities_only_keeps_other_keys_of_the_agent_back(sshd: Sshd, agent: Path, tmp_path: Path) -> None:
    """Six keys are more than the server lets one try; with IdentitiesOnly the right one is the first."""
    for number in range(6):
        add_to_agent(agent, keygen(tmp_path / f"key{number}"))
    connect(sshd.ssh_config("box", f"IdentityAgent {agent}"))
    config = sshd.ssh_config("box", f"IdentityAgent {agent}")
    config.write_text(config.read_text().replace("IdentitiesOnly yes", "IdentitiesOnly no"))
    sshd.client_key.with_name("id_ed25519.pub").unlink()
    with pytest.raises(AuthError, match="after 6 keys") as caught:
        connect(config)
    assert "IdentitiesOnly yes" in str(caught.value.fix)


def test_a_certificate(sshd: Sshd, tmp_path: Path) -> None:
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user_key")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", sshd.user, str(key)]
    subprocess.run(sign, check=True)
    sshd.stop()
    sshd.authorize()
    sshd.options["TrustedUserCAKeys"] = f"{authority}.pub"
    sshd.start()
    sshd.client_key = key
    connect(sshd.ssh_config())
    # ... and from another place, by CertificateFile
    moved = tmp_path / "elsewhere-cert.pub"
    Path(f"{key}-cert.pub").rename(moved)
    connect(sshd.ssh_config("box", f"CertificateFile {moved}"))
    with pytest.raises(AuthError):
        connect(sshd.ssh_config())


def test_an_encrypted_key_asks_once_and_only_on_a_terminal(sshd: Sshd, tmp_path: Path) -> None:
    key = keygen(tmp_path / "locked", passphrase="open sesame")
    sshd.authorize(public(key))
    sshd.client_key = key
    with pytest.raises(AuthError, match="no terminal to ask"):
        connect(sshd.ssh_config())
    asked: list[str] = []

    def ask(question: str, echo: bool) -> str:
        asked.append(question)
        return "open sesame"

    connector = Connector(parse("box"), sshd.ssh_config(), ask)
    for _ in range(2):  # a reconnect does not ask again
        connector.connect().close()
    assert asked == [f"Passphrase for {key}: "]
    with pytest.raises(AuthError, match="wrong passphrase"):
        connect(sshd.ssh_config(), ask=lambda question, echo: "wrong")


def test_there_is_no_terminal_in_a_session_without_one() -> None:
    code = "from stackctl.tunnel.auth import terminal; print(terminal())"
    command = [".venv/bin/python", "-c", code]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, start_new_session=True)
    assert done.stdout.strip() == "None"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(root)
        os.execv(command[0], command)  # noqa: S606
    with os.fdopen(terminal) as output:
        assert "ask_on_terminal" in output.readline()
    os.waitpid(pid, 0)


def test_a_name_is_required_where_two_factors_are(sshd: Sshd) -> None:
    """publickey alone is accepted partially; without a terminal the second factor cannot be given."""
    sshd.stop()
    sshd.options |= {"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"}
    sshd.start()
    with pytest.raises(AuthError, match="the server accepts password"):
        connect(sshd.ssh_config())


class AsksTwice(paramiko.ServerInterface):
    """Lets in whoever answers two questions: what a one-time password behind PAM looks like to a client."""

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery | int:
        query = paramiko.InteractiveQuery("Login", "Use your token.")
        query.add_prompt("Password: ", False)
        query.add_prompt("Code: ", True)
        return query

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return 0 if responses == ["secret", "123456"] else 2  # AUTH_SUCCESSFUL, AUTH_FAILED


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Path]:
    """A server that asks two questions at once; its client configuration."""
    key = keygen(tmp_path / "host")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    made: list[paramiko.Transport] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                transport = paramiko.Transport(sock)
                transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(key)))
                made.append(transport)
                transport.start_server(server=AsksTwice())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {public(key)}\n")
    config = tmp_path / "config"
    config.write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n UserKnownHostsFile {tmp_path}/known\n"
        " IdentityFile none\n IdentitiesOnly yes\n"
    )
    yield config
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    for transport in made:
        transport.close()


def test_keyboard_interactive_asks_what_the_server_asks(asking: Path) -> None:
    asked: list[tuple[str, bool]] = []

    def ask(question: str, echo: bool) -> str:
        asked.append((question, echo))
        return "123456" if echo else "secret"

    connect(asking, ask=ask)
    assert asked == [("Password: ", False), ("Code: ", True)]
    with pytest.raises(AuthError, match="accepts keyboard-interactive; tried keyboard-interactive"):
        connect(asking, ask=lambda question, echo: "wrong")
    with pytest.raises(AuthError, match="accepts keyboard-interactive; tried nothing"):
        connect(asking)


@pytest.fixture
def with_pam(tmp_path: Path) -> Iterator[Sshd]:
    """OpenSSH's server with a PAM service of its own, whose password is `secret`."""
    name = f"stackctl-test-{uuid.uuid4().hex[:8]}"
    service = Path("/etc/pam.d") / name
    if not os.access(service.parent, os.W_OK):
        pytest.skip("a PAM service cannot be made here: needs root")
    check = tmp_path / "check"
    check.write_text("#!/bin/sh\n[ \"$(tr -d '\\0')\" = secret ]\n")
    check.chmod(0o755)
    (tmp_path / name).symlink_to(str(SSHD))
    server = Sshd(tmp_path / "pam", program=str(tmp_path / name))
    server.options |= {"UsePAM": "yes", "KbdInteractiveAuthentication": "yes"}
    stack = (
        f"auth required pam_exec.so quiet expose_authtok {check}",
        "auth required pam_permit.so",  # for the credentials, of which pam_exec knows nothing
        "account required pam_permit.so",
        "session required pam_permit.so",
    )
    service.write_text("\n".join(stack) + "\n")
    try:
        yield server
        server.stop()
    finally:
        service.unlink()


@pytest.mark.parametrize(
    "methods", ["keyboard-interactive", "publickey,keyboard-interactive", "keyboard-interactive,publickey"]
)
def test_openssh_and_pam_ask_and_are_answered(with_pam: Sshd, methods: str) -> None:
    with_pam.options["AuthenticationMethods"] = methods
    config = with_pam.start().ssh_config()
    asked: list[tuple[str, bool]] = []

    def answer(question: str, echo: bool) -> str:
        asked.append((question, echo))
        return "secret"

    connect(config, ask=answer)
    assert asked == [("Password: ", False)]
    with pytest.raises(AuthError, match="keyboard-interactive"):
        connect(config, ask=lambda question, echo: "wrong")
    with pytest.raises(AuthError, match="accepts keyboard-interactive"):
        connect(config)  # without a terminal


# --- host keys ---


def test_an_unknown_key_is_refused_with_the_way_to_trust_it(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    with pytest.raises(HostKeyError, match="is not known: ssh-ed25519 SHA256:") as caught:
        connect(sshd.ssh_config())
    assert "stackctl tunnel trust box" in str(caught.value.fix)
    assert sshd.known_hosts.read_text() == ""


def test_a_changed_key_is_refused_even_with_checking_off(sshd: Sshd, tmp_path: Path) -> None:
    other = public(keygen(tmp_path / "other")).split()[:2]
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {' '.join(other)}\n")
    config = sshd.ssh_config()
    for checking in ("yes", "no", "accept-new"):
        text = config.read_text().replace("StrictHostKeyChecking yes", f"StrictHostKeyChecking {checking}")
        config.write_text(text)
        with pytest.raises(HostKeyError, match="HAS CHANGED"):
            connect(config)


def test_accept_new_writes_the_key_as_ssh_would(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    config = sshd.ssh_config("box", "HashKnownHosts yes")
    config.write_text(config.read_text().replace("Checking yes", "Checking accept-new"))
    connect(config)
    assert sshd.known_hosts.read_text().startswith("|1|")
    found = ["ssh-keygen", "-F", f"[127.0.0.1]:{sshd.port}", "-f", str(sshd.known_hosts)]
    assert subprocess.run(found, capture_output=True).returncode == 0
    connect(sshd.ssh_config())


@pytest.mark.parametrize("known", ["rsa", "ecdsa", "ed25519"])
def test_the_key_type_that_is_known_is_the_one_asked_for(tmp_path: Path, known: str) -> None:
    sshd = Sshd(tmp_path / "sshd", key_types=("ed25519", "ecdsa", "rsa")).start()
    try:
        sshd.write_known_hosts(sshd.host_line(known))
        connect(sshd.ssh_config())
    finally:
        sshd.stop()


def test_a_key_that_cannot_be_written_down_does_not_keep_from_connecting(
    sshd: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = sshd.ssh_config()
    text = config.read_text().replace("Checking yes", "Checking accept-new")
    config.write_text(text.replace(str(sshd.known_hosts), f"{tmp_path}/file/known_hosts"))
    connect(config)
    assert "could not be added to" in caplog.text


def test_host_key_alias_and_hashed_names(sshd: Sshd) -> None:
    sshd.write_known_hosts(sshd.host_line(name="gpu.example.org"))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(sshd.known_hosts)], check=True, capture_output=True)
    connect(sshd.ssh_config("box", "HostKeyAlias gpu.example.org"))
    with pytest.raises(HostKeyError):
        connect(sshd.ssh_config())


def test_ipv6(tmp_path: Path) -> None:
    sshd = Sshd(tmp_path / "sshd", host="::1").start()
    try:
        connect(sshd.ssh_config())
        assert knownhosts.read([sshd.known_hosts])[0].names == (f"[::1]:{sshd.port}",)
    finally:
        sshd.stop()


# --- the way there ---


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Sshd]]:
    servers = [Sshd(tmp_path / name).start() for name in ("one", "two", "three")]
    yield servers
    for server in servers:
        server.stop()


def entry(alias: str, server: Sshd, *lines: str) -> str:
    return server.ssh_config(alias, *lines).read_text()


def test_one_jump_and_two(three: list[Sshd], tmp_path: Path) -> None:
    config = tmp_path / "config"
    one, two, last = three
    config.write_text(
        entry("one", one) + entry("two", two, "ProxyJump one") + entry("last", last, "ProxyJump two")
        + entry("listed", last, "ProxyJump one,two")
    )  # fmt: skip
    for alias in ("two", "last", "listed"):
        connect(config, alias)
    # Each hop was really used.
    assert "Accepted publickey" in one.log() and "Accepted publickey" in two.log()


def test_a_jump_in_a_circle_is_refused(three: list[Sshd], tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(entry("one", three[0], "ProxyJump two") + entry("two", three[1], "ProxyJump one"))
    with pytest.raises(PermanentTunnelError, match="in a circle"):
        connect(config, "one")


def test_a_jump_host_that_cannot_reach_the_target_says_so(three: list[Sshd], tmp_path: Path) -> None:
    config = tmp_path / "config"
    three[2].stop()
    config.write_text(entry("one", three[0]) + entry("last", three[2], "ProxyJump one"))
    with pytest.raises(TunnelError, match=f"jump host 127.0.0.1:{three[0].port} cannot reach"):
        connect(config, "last")


def test_a_jump_host_that_ends_right_after_the_login_may_come_back(
    three: list[Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(entry("one", three[0]) + entry("last", three[2], "ProxyJump one"))
    inside = connecting._inside

    def late(session: connecting.Session, *rest: Any) -> socket.socket:
        three[0].drop_sessions()
        eventually(lambda: not session.transport.is_active(), what="the end of the jump host's session")
        return inside(session, *rest)

    monkeypatch.setattr(connecting, "_inside", late)
    with pytest.raises(TunnelError, match="it went away"):
        connect(config, "last")


def test_a_kernel_without_a_family_of_addresses_is_no_reason_to_stop(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = socket.socket
    both = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    found = [(family, socket.SOCK_STREAM, 6, "", (host, sshd.port)) for family, host in both]
    config = sshd.ssh_config()

    def limited(family: int = socket.AF_INET, *rest: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return made(family, *rest, **named)

    settings = resolve(parse("box"), config)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    monkeypatch.setattr(socket, "socket", limited)
    dial.dial(settings).sock.close()
    found.reverse()
    sshd.stop()
    with pytest.raises(TunnelError, match="address family not supported"):
        dial.dial(settings)


def test_proxy_jump_none_is_no_jump(sshd: Sshd) -> None:
    connect(sshd.ssh_config("box", "ProxyJump none"))


def test_proxy_command_with_tokens(three: list[Sshd], tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        entry("one", three[0]) + entry("last", three[2], f"ProxyCommand ssh -F {config} -W %h:%p one")
    )
    connect(config, "last")
    config.write_text(entry("last", three[2], "ProxyCommand false"))
    with pytest.raises(TunnelError, match="no SSH handshake"):
        connect(config, "last")
    helper = "sh -c 'echo please log in at https://example.org/abc >&2; exit 1'"
    config.write_text(entry("last", three[2], f"ProxyCommand {helper}"))
    with pytest.raises(TunnelError, match="ProxyCommand said: please log in at https://example"):
        connect(config, "last")


def test_include_match_and_percent_tokens(sshd: Sshd, tmp_path: Path) -> None:
    included = tmp_path / "more"
    included.write_text(sshd.ssh_config().read_text().replace("Host box", "Match host b?x"))
    (tmp_path / "key-box").write_bytes(sshd.client_key.read_bytes())
    (tmp_path / "key-box").chmod(0o600)
    text = included.read_text().replace(str(sshd.client_key), f"{tmp_path}/key-%n")
    included.write_text(text)
    config = tmp_path / "config"
    config.write_text(f"Include {included}\n")
    connect(config)


# --- what is asked of ssh ---


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["ControlMaster auto", "ControlPath /tmp/none-%C"], "ControlPath"),
        (["KnownHostsCommand /bin/true"], "KnownHostsCommand"),
        (["VerifyHostKeyDNS yes"], "VerifyHostKeyDNS"),
        (["RevokedHostKeys /etc/ssh/revoked"], "RevokedHostKeys"),
    ],
)
def test_what_only_openssh_can_do_is_noticed(sshd: Sshd, lines: list[str], reason: str) -> None:
    assert reason in resolve(parse("box"), sshd.ssh_config("box", *lines)).needs_openssh[0]


def test_a_security_key_needs_openssh(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "id_sk.pub").write_text("sk-ssh-ed25519@openssh.com AAAA me\n")
    config = sshd.ssh_config("box", f"IdentityFile {tmp_path}/id_sk")
    assert "security key" in resolve(parse("box"), config).needs_openssh[0]
    assert resolve(parse("box"), sshd.ssh_config()).needs_openssh == ()


def with_host_certificate(sshd: Sshd, authority: Path) -> str:
    """Restart the server with a certificate for its host key; the known_hosts line of its authority."""
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "box", "-h", "-n", sshd.host]
    subprocess.run([*sign, f"{sshd.host_key()}.pub"], check=True)
    sshd.stop()
    sshd.options["HostCertificate"] = f"{sshd.host_key()}-cert.pub"
    sshd.start()
    return f"@cert-authority {sshd.host} {public(authority)}"


def test_a_host_certificate_chooses_openssh_by_itself(
    sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, service: Callable[..., Service]
) -> None:
    authority = keygen(tmp_path / "ca")
    sshd.write_known_hosts(with_host_certificate(sshd, authority))
    made = tunnel(service(echo).port)
    assert made.supervisor.progress.transport == "openssh"
    with made.connect() as sock:
        sock.sendall(b"through")
        assert sock.recv(100) == b"through"
    # Another authority is not believed.
    sshd.write_known_hosts(f"@cert-authority {sshd.host} {public(keygen(tmp_path / 'other'))}")
    refused = tunnel(1, wait=False)
    refused.wait("failed")
    assert isinstance(refused.error[0], HostKeyError), refused.error


@pytest.mark.parametrize("transport", ["auto", "paramiko"])
def test_a_key_in_revoked_host_keys_is_refused(
    sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, service: Callable[..., Service], transport: str
) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_text(public(keygen(tmp_path / "other")) + "\n")
    config = sshd.ssh_config("box", f"RevokedHostKeys {revoked}")
    if transport == "auto":
        assert tunnel(service(echo).port, config=config).supervisor.progress.transport == "openssh"
    revoked.write_text(public(sshd.host_key()) + "\n")
    refused = tunnel(1, config=config, transport=transport, wait=False)
    refused.wait("failed")
    assert isinstance(refused.error[0], HostKeyError if transport == "auto" else PermanentTunnelError)
    assert transport == "auto" or "cannot honour RevokedHostKeys" in str(refused.error[0])


def test_a_jump_host_can_be_what_needs_openssh(three: list[Sshd], tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(entry("one", three[0]) + entry("two", three[1], "ProxyJump one"))
    settings = resolve(parse("two"), config)
    assert openssh_needs(settings, config) == []
    jump = three[0]
    jump.known_hosts.write_text(
        jump.known_hosts.read_text() + f"@cert-authority {jump.host} {public(jump.client_key)}\n"
    )
    assert [reason for reason in openssh_needs(settings, config) if "(jump host " in reason]


def test_a_key_in_a_file_of_openssl_chooses_openssh(
    sshd: Sshd, tmp_path: Path, tunnel: MakeTunnel, service: Callable[..., Service]
) -> None:
    key = tmp_path / "pkcs8"
    made = serialization.load_ssh_private_key(keygen(tmp_path / "rsa", "rsa").read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(made.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    key.chmod(0o600)
    sshd.authorize(public(tmp_path / "rsa"))
    sshd.client_key = key
    assert tunnel(service(echo).port).supervisor.progress.transport == "openssh"
    locked = serialization.BestAvailableEncryption(b"open sesame")
    key.write_bytes(made.private_bytes(pem, pkcs8, locked))
    refused = tunnel(1, wait=False)
    refused.wait("failed")
    assert getattr(refused.error[0], "fix", "") == f"ssh-add {key}"


def test_a_server_that_shares_no_cipher_with_us_is_reached_over_openssh(
    sshd: Sshd, tunnel: MakeTunnel, service: Callable[..., Service]
) -> None:
    sshd.stop()
    sshd.options["Ciphers"] = "chacha20-poly1305@openssh.com"
    sshd.start()
    assert tunnel(service(echo).port).supervisor.progress.transport == "openssh"
    refused = tunnel(1, transport="paramiko", wait=False)
    refused.wait("failed")
    assert "transport: openssh" in str(getattr(refused.error[0], "fix", ""))


def test_a_bad_configuration_is_explained(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host box\n  NoSuchOption yes\n")
    with pytest.raises(ConfigError, match="terminating, 1 bad configuration options"):
        resolve(parse("box"), config)
    with pytest.raises(ConfigError, match="is not a file"):
        resolve(parse("box"), tmp_path / "none")


def test_a_config_file_cannot_smuggle_an_option_into_a_host_name(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host box\n  HostName -oProxyCommand=touch\\ x\n")
    with pytest.raises((UsageError, ConfigError)):
        resolve(parse("box"), config)
