"""How long are certificates valid? From a PEM file, or from what a server shows (trusted or not)."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path

from stackctl.durations import format_duration
from stackctl.health.check import Check, Look
from stackctl.health.limits import limits
from stackctl.health.look.scene import Scene
from stackctl.health.model import Metric, Result, Status, unknown
from stackctl.health.plan import Certificate

_DAY = 86400.0


def checks(scene: Scene) -> list[Check]:
    return [
        Check(
            id=f"certificate.{certificate.name}",
            title=f"Certificate {certificate.name} is valid",
            looks_at=f"the dates of the certificate of {certificate.file or certificate.connect}",
            why="an expired certificate is an outage on a date that is known beforehand",
            do="renew it, then stackctl restart proxy",
            run=partial(_look, scene, certificate),
            interval=3600,
            thresholds="warn, crit: time left (14d, 3d)",
            during_operations=False,
            fail_after=1,
        )
        for certificate in scene.plan.health.certificates
    ]


def _look(scene: Scene, certificate: Certificate, look: Look) -> Result:
    try:
        start, end, subject = _dates(certificate, look)
    except (TimeoutError, ConnectionError) as error:
        return Result(Status.CRITICAL, f"{certificate.connect}: {error.strerror or 'no answer'}")
    except (OSError, ValueError) as error:
        return unknown(
            f"{certificate.file or certificate.connect}: {getattr(error, 'strerror', None) or error}"
        )
    warn, crit = limits(scene.plan, f"certificate.{certificate.name}")
    now = look.now.wall
    left = end - now
    metrics = (Metric("left", round(left), "s", warn, crit),)
    date = time.strftime("%Y-%m-%d", time.gmtime(end))
    if left <= 0:
        return Result(Status.CRITICAL, f"{subject} expired on {date}", metrics=metrics)
    if now < start:
        return Result(Status.CRITICAL, f"{subject} is not valid yet", metrics=metrics)
    status = Status.CRITICAL if left < crit else Status.WARNING if left < warn else Status.OK
    return Result(status, f"{subject} is valid for {format_duration(left)}, until {date}", metrics=metrics)


def _dates(certificate: Certificate, look: Look) -> tuple[float, float, str]:
    # Imported here: it costs more than all other checks, and most stacks have no certificate to watch.
    from cryptography import x509

    if certificate.file:
        pem = Path(certificate.file).read_bytes()
        found = min(x509.load_pem_x509_certificates(pem), key=lambda cert: cert.not_valid_after_utc)
    else:
        found = x509.load_der_x509_certificate(_shown(certificate, look))
    names = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    subject = str(names[0].value) if names else certificate.name
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp(), subject


def _shown(certificate: Certificate, look: Look) -> bytes:
    import ssl

    host, _, port = str(certificate.connect).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("write it as host:port")
    # Only dates are read, nothing is trusted: an untrusted certificate expires, too.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout=look.left) as plain,
        context.wrap_socket(plain, server_hostname=certificate.server_name or host) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    if not shown:
        raise ValueError("the server showed no certificate")
    return shown
