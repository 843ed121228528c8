"""Proof of life from end to end: an HTTP request through the tunnel to the service itself."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

TIMEOUT = 5.0


@dataclass(frozen=True)
class Probe:
    service: str
    local_port: int
    alive: bool
    said: str  # "HTTP 200 in 12 ms", or why not
    milliseconds: float | None = None


def probe(service: str, host: str, port: int, timeout: float = TIMEOUT) -> Probe:
    """Any HTTP answer is life; what it says is the health checks' concern."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"User-Agent": "stackctl-tunnel", "Connection": "close"})
        status = connection.getresponse().status
    except http.client.RemoteDisconnected:
        return Probe(service, port, False, "closed without an answer")
    except http.client.HTTPException:
        return Probe(service, port, True, "answers, but not with HTTP", _since(began))
    except ConnectionResetError:
        return Probe(service, port, False, "reset: the service is not reachable from the server")
    except TimeoutError:
        return Probe(service, port, False, f"no answer within {timeout:g} s")
    except OSError as error:
        return Probe(service, port, False, (error.strerror or str(error)).lower())
    finally:
        connection.close()
    took = _since(began)
    return Probe(service, port, True, f"HTTP {status} in {took:.0f} ms", took)


def probe_all(groups: list[list[tuple[str, str, int]]], timeout: float = TIMEOUT) -> list[list[Probe]]:
    """All of (service, host, port) at once, in the groups they came in: a mute one costs its time once."""
    count = sum(map(len, groups))
    with ThreadPoolExecutor(max_workers=min(max(count, 1), 256)) as pool:
        asked = [[pool.submit(probe, *each, timeout) for each in group] for group in groups]
        return [[each.result() for each in group] for group in asked]


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
