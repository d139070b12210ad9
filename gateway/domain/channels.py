"""How a channel to people is reached: what the configuration says and a notifier needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class StartTls(StrEnum):
    """Whether a plain SMTP connection is upgraded. A certificate that does not verify is refused in either case."""

    AUTO = "auto"
    REQUIRED = "required"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """One `POST` of JSON per person; `secret` signs the body."""

    url: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SmtpChannel:
    """One mail per person. `is_tls`: TLS from the first byte (smtps); `sender` is the address in From."""

    host: str
    port: int
    is_tls: bool
    sender: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: StartTls = StartTls.AUTO
    ca_file: Path | None = None


Channel = WebhookChannel | SmtpChannel
