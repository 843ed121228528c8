"""E-mail over SMTP. A password is never sent over a connection that is not encrypted."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from stackctl.health.notify.dispatch import NotDelivered
from stackctl.health.notify.message import Message
from stackctl.health.notify.ntfy import read_secret
from stackctl.health.plan import Channel


def send(channel: Channel, message: Message) -> None:
    mail = EmailMessage()
    mail["Subject"] = message.subject
    mail["From"] = channel.sender or ""
    mail["To"] = ", ".join(channel.to or ())
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain="stackctl.invalid")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    try:
        with _connect(channel) as server:
            if channel.user and channel.password_file:
                if channel.security == "none":
                    raise NotDelivered("a password needs security: starttls or tls")
                server.login(channel.user, read_secret(channel.password_file))
            refused = server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        raise NotDelivered(f"{channel.host} refused {', '.join(error.recipients)}") from error
    except UnicodeError as error:
        raise NotDelivered(f"{channel.host}: user, password and addresses must be ASCII: {error}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"{channel.host}:{channel.port}: {error}") from error
    if refused:
        raise NotDelivered(f"{channel.host} refused {', '.join(refused)}")


def _connect(channel: Channel) -> smtplib.SMTP:
    host, port = channel.host or "localhost", channel.port or 0
    context = ssl.create_default_context(cafile=channel.ca_file)
    if channel.security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=channel.timeout, context=context)
    server = smtplib.SMTP(host, port, timeout=channel.timeout)
    if channel.security == "starttls":
        try:
            server.starttls(context=context)
        except Exception:
            server.close()
            raise
    return server
