"""Why a tunnel is not up, sorted by what a supervisor must do about it.

TunnelError                    may pass by itself: try again
└── PermanentTunnelError       will not: stop and say why
    ├── HostKeyError           unknown, changed or revoked host key
    ├── AuthError              the server refused every way to log in
    ├── Incompatible           the in-process transport and the server share no algorithm
    └── ForwardRefused         the server's configuration forbids forwarding
"""

from __future__ import annotations

from stackctl.errors import StackctlError


class TunnelError(StackctlError):
    pass


class PermanentTunnelError(TunnelError):
    exit_code = 3  # refused: a service manager must not try again (see unit.py)


class HostKeyError(PermanentTunnelError):
    pass


class AuthError(PermanentTunnelError):
    pass


class ForwardRefused(PermanentTunnelError):
    pass


class Incompatible(PermanentTunnelError):
    """OpenSSH may know what the server wants."""
