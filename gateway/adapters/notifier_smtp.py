"""Alerts by mail: one message per person, plain UTF-8 text, one thread per alarm.

    accepted ─▶ Delivered
    5xx to the recipient or the message ─▶ Rejected
    4xx, no connection, no valid TLS, a refused login ─▶ Retryable (a login is no verdict on the message)

The subject begins with ASCII `[P1]`, whatever the reader's client does to other letters. `Message-ID` comes from the
idempotency key, so that a mail sent twice is one mail; every mail of an alarm refers to the same root, which makes
them one thread. smtplib blocks and therefore runs in a thread.

Source: the outside contract, section 4; RFC 5321 (reply codes), RFC 5322 (identification fields).
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.header import Header
from email.message import Message
from email.mime.text import MIMEText
from email.utils import parseaddr
from typing import Final
from urllib.parse import quote

from gateway.domain.channels import SmtpChannel, StartTls
from gateway.domain.notice import Alert
from gateway.ports import Delivered, Rejected, Retryable
from gateway.services.dispatch import IN_FLIGHT_MAX

TIMEOUT_S: Final = 10.0
"""For each step of the conversation: a server that takes longer is tried again, with the same Message-ID."""

CONVERSATION_S: Final = 60.0
"""For all of it: what takes longer is a tarpit, and people must hear that mail does not get through."""

SUBJECT_MAX_CHARS: Final = 78
"""A header line as RFC 5322 recommends it, and what a phone shows."""

_PERMANENT: Final = 500
"""Reply codes from here on say: do not try the same again (RFC 5321, 4.2.1)."""


class SmtpNotifier:
    """`gateway.ports.Notifier` over SMTP."""

    def __init__(self, channel: SmtpChannel) -> None:
        self._channel = channel
        self._threads = ThreadPoolExecutor(IN_FLIGHT_MAX, "smtp")  # own ones: what hangs holds up only mail

    async def send(self, alert: Alert) -> Delivered | Retryable | Rejected:
        """Hand one message over. Never raises for anything outside."""
        if not alert.to.email:
            return Rejected(f"{alert.to.id} has no mail address")
        message = compose(alert, self._channel.sender)
        sending = asyncio.get_running_loop().run_in_executor(
            self._threads, self._send, message, alert.to.email
        )
        try:
            async with asyncio.timeout(CONVERSATION_S):
                return await sending
        except TimeoutError:
            return Retryable("the server speaks, but comes to no end")

    async def close(self) -> None:
        """Nothing is kept open between mails; a conversation under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _send(self, message: Message, address: str) -> Delivered | Retryable | Rejected:
        try:
            with self._connect() as server:
                self._log_in(server)
                sender = parseaddr(self._channel.sender)[1]
                return _hand_over(server, sender, address, message)
        except smtplib.SMTPResponseException as error:
            return Retryable(f"SMTP {error.smtp_code}: {_text(error.smtp_error)}")
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return Retryable(f"{type(error).__name__}: {error}")

    def _connect(self) -> smtplib.SMTP:
        channel = self._channel
        name = socket.gethostname()  # getfqdn, smtplib's default, may wait for a name server
        if channel.is_tls:
            return smtplib.SMTP_SSL(
                channel.host, channel.port, name, timeout=TIMEOUT_S, context=self._tls_context()
            )
        server = smtplib.SMTP(channel.host, channel.port, name, timeout=TIMEOUT_S)
        try:
            server.ehlo()
            if channel.starttls is StartTls.REQUIRED or (
                channel.starttls is StartTls.AUTO and server.has_extn("starttls")
            ):
                server.starttls(context=self._tls_context())
        except BaseException:
            server.close()
            raise
        return server

    def _tls_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._channel.ca_file)

    def _log_in(self, server: smtplib.SMTP) -> None:
        if self._channel.username is not None:
            server.login(self._channel.username, self._channel.password or "")


def _hand_over(
    server: smtplib.SMTP, sender: str, address: str, message: Message
) -> Delivered | Retryable | Rejected:
    try:
        server.send_message(message, sender, [address])
    except smtplib.SMTPRecipientsRefused as refused:
        code, said = next(iter(refused.recipients.values()))
        return _refusal(code, said)
    except smtplib.SMTPResponseException as error:
        return _refusal(error.smtp_code, error.smtp_error)
    return Delivered()


def _refusal(code: int, said: bytes | str) -> Retryable | Rejected:
    reason = f"SMTP {code}: {_text(said)}"
    return Rejected(reason) if code >= _PERMANENT else Retryable(reason)


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def compose(alert: Alert, sender: str) -> MIMEText:
    """The mail that an alert becomes."""
    domain = parseaddr(sender)[1].rpartition("@")[2]
    message = MIMEText(alert.text, "plain", "utf-8")
    message["From"] = sender
    message["To"] = alert.to.email or ""
    message["Subject"] = _subject(alert).encode()
    message["Message-ID"] = f"<{_id_part(alert.delivery)}@{domain}>"
    if alert.alarm is not None:
        message["References"] = f"<{_id_part(f'alarm-{alert.alarm}/{alert.since}')}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    return message


def _subject(alert: Alert) -> Header:
    """The priority as plain ASCII, the rest as one encoded text (the library's newer folding loses blanks in it)."""
    prefix = f"[{alert.priority}]"
    title = alert.title.removeprefix(f"{alert.priority} ")
    room = SUBJECT_MAX_CHARS - len(prefix) - 1
    shown = title if len(title) <= room else f"{title[: room - 1]}…"
    subject = Header(prefix, "us-ascii", header_name="Subject")
    subject.append(shown, "us-ascii" if shown.isascii() else "utf-8")
    return subject


def _id_part(text: str) -> str:
    """The left side of a message id: the key itself where RFC 5322's atoms allow it, else percent-encoded."""
    return re.sub(r"\.(?=\.|$)|^\.", "%2E", quote(text, safe="/!#$&'*+-=?^_`{|}~."))
