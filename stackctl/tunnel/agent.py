"""The ssh agent that the configuration names.

Whoever connects to it closes it: a key of an agent knows the agent and the other way round, so that nobody
else would do so soon.
"""

from __future__ import annotations

import socket
from typing import Any

import paramiko
from paramiko.agent import AgentSSH


def connect(path: str | None) -> Any:
    """With its keys; None where there is no agent that answers."""
    if not path:
        return None
    agent: Any = AgentSSH()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    try:
        connection.connect(path)
        agent._connect(connection)
    except (OSError, paramiko.SSHException):
        connection.close()
        return None
    connection.settimeout(60)  # it may ask a person whether a key may be used
    return agent


def blobs(path: str | None) -> set[bytes]:
    """The public halves of the keys that it has."""
    agent = connect(path)
    if agent is None:
        return set()
    try:
        return {key.blob for key in agent.get_keys()}
    finally:
        agent._close()
