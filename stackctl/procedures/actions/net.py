"""`http.*` and `port.*`: what answers on this host."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request

from stackctl.config.durations import Duration
from stackctl.procedures.context import Context
from stackctl.procedures.registry import Args, Outcome, action


class HttpArgs(Args):
    url: str
    status: int = 200
    contains: str | None = None
    within: Duration = 60.0


class PortArgs(Args):
    port: int
    host: str = "127.0.0.1"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


# A proxy of the environment has no business between this host and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def why_not(args: HttpArgs, timeout: float) -> str | None:
    """None when the answer is the wanted one, else what came instead."""
    try:
        with _OPENER.open(args.url, timeout=max(timeout, 0.1)) as answer:
            status, body = answer.status, answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read(1 << 20)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"{args.url}: {reason}"
    if status != args.status:
        return f"{args.url}: status {status}, wanted {args.status}"
    if args.contains is not None and args.contains not in body.decode(errors="replace"):
        return f"{args.url}: the answer does not contain {args.contains!r}"
    return None


@action("http.ok", HttpArgs, reads_only=True)
def http_ok(context: Context, args: HttpArgs) -> Outcome:
    """Holds when the URL answers as wanted, asked once."""
    reason = why_not(args, min(args.within, context.remaining(), 10.0))
    return Outcome(reason is None, reason or f"{args.url} answers {args.status}")


@action("http.wait", HttpArgs, reads_only=True)
def http_wait(context: Context, args: HttpArgs) -> Outcome:
    """Waits until the URL answers as wanted."""
    took = context.wait_until(
        lambda: why_not(args, min(10.0, context.remaining())), f"an answer of {args.url}", args.within
    )
    return Outcome(True, f"{args.url} answered {args.status} after {took:.1f} s")


@action("port.free", PortArgs, reads_only=True)
def port_free(_context: Context, args: PortArgs) -> Outcome:
    """Holds when nothing listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(2.0)
        taken = probe.connect_ex((args.host, args.port)) == 0
    return Outcome(not taken, f"{args.host}:{args.port} is {'taken' if taken else 'free'}")
