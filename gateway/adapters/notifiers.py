"""A notifier for each kind of channel."""

from __future__ import annotations

from typing import assert_never

from gateway.adapters.notifier_smtp import SmtpNotifier
from gateway.adapters.notifier_webhook import WebhookNotifier
from gateway.domain.channels import Channel, SmtpChannel, WebhookChannel


def open_notifier(channel: Channel) -> WebhookNotifier | SmtpNotifier:
    """The notifier that `channel` needs; nothing is connected before the first message. Close it with `close`."""
    match channel:
        case WebhookChannel():
            return WebhookNotifier(channel)
        case SmtpChannel():
            return SmtpNotifier(channel)
        case _:
            assert_never(channel)
