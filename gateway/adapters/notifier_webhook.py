"""Alerts by webhook: one POST of JSON per person and channel, signed, with an idempotency key.

    2xx ─▶ Delivered
    4xx but 408 and 429 ─▶ Rejected: the same body would be refused again
    everything else (3xx, 5xx, timeout, no connection, no valid TLS) ─▶ Retryable: nobody knows, or not now

Source: the outside contract, section 4; RFC 9110 (status codes).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib.util
import sys
from typing import Final, cast

import httpx

from edge_agent.wire.chain import canonical
from edge_agent.wire.event import Json
from edge_agent.wire.structure import plain
from gateway.domain.channels import WebhookChannel
from gateway.domain.notice import Alert
from gateway.ports import Delivered, Rejected, Retryable

if importlib.util.find_spec("sniffio") is None:
    # httpcore looks for it a dozen times a request, on the disk each time: half of what an alert costs
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # "known not to be there" (importlib's own convention)

TIMEOUT_S: Final = 10.0
"""For connecting and for each wait on the answer: a receiver that takes longer is tried again, with the same key."""

EXCHANGE_S: Final = 60.0
"""For all of it: what takes longer is a tarpit, and people must hear that alerts do not get through."""

ANSWER_MAX_BYTES: Final = 2048
"""How much of a refusal is read: enough to see what it wants, no more than a page."""

REQUEST_TIMEOUT, TOO_MANY_REQUESTS = 408, 429
"""The two refusals that ask to come again (RFC 9110, RFC 6585)."""


class WebhookNotifier:
    """`gateway.ports.Notifier` over HTTP. Close it with `close`."""

    def __init__(self, channel: WebhookChannel) -> None:
        self._channel = channel
        # no proxy from the environment: a channel goes where the configuration says
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def send(self, alert: Alert) -> Delivered | Retryable | Rejected:
        """Hand one message over. Never raises for anything outside."""
        body = canonical(cast("dict[str, Json]", plain(alert)))
        headers = {"Content-Type": "application/json", "Idempotency-Key": alert.delivery}
        if self._channel.secret is not None:
            digest = hmac.new(self._channel.secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Guardwatch-Signature"] = f"sha256={digest}"
        try:
            request = self._client.build_request(
                "POST", self._channel.url, content=body, headers=_ascii(headers)
            )
            async with asyncio.timeout(EXCHANGE_S):
                response = await self._client.send(request, stream=True)
                try:
                    return await _outcome(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            return Retryable("the receiver answers, but comes to no end")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return Retryable(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Close kept connections."""
        await self._client.aclose()


async def _outcome(response: httpx.Response) -> Delivered | Retryable | Rejected:
    if response.is_success:
        return Delivered()
    said = b""
    async for chunk in response.aiter_bytes(ANSWER_MAX_BYTES):
        said = chunk
        break
    reason = f"HTTP {response.status_code}: {said.decode('utf-8', 'replace')}"
    if response.is_client_error and response.status_code not in (REQUEST_TIMEOUT, TOO_MANY_REQUESTS):
        return Rejected(reason)
    return Retryable(reason)


def _ascii(headers: dict[str, str]) -> dict[str, str]:
    """A key may hold what an agent made up; a header holds visible ASCII, and the body has the key as it is."""
    return {
        name: value.encode("ascii", "backslashreplace").decode().replace("\r", "").replace("\n", "")
        for name, value in headers.items()
    }
