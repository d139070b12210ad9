"""What every request and answer keeps to, before any route sees it: sizes, deadlines, headers (ASGI middleware).

Headers that never end are the server's affair (`HEADERS_MAX_BYTES`, given to uvicorn too). Bodies are read here, whole,
against a limit and a deadline; every answer leaves with the same security headers. Nothing is cached but the
board's own files, which are checked again at each use.
"""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX_BYTES = 64 * 1024
"""The largest request is an acknowledgement's note."""
BODY_DEADLINE_S = 10.0
"""A body that takes longer is somebody holding a connection."""
HEADERS_MAX_BYTES = 32 * 1024
"""Request line and headers together."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'"
)
"""No inline script or style, no other host, no frame around us."""

_HEADERS = {
    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Limits:
    """The middleware. `is_https` adds HSTS."""

    def __init__(self, app: ASGIApp, *, is_https: bool) -> None:
        self._app = app
        self._extra = [_HSTS] if is_https else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0].lower() != b"server"]
                names = {name.lower() for name, _ in headers}
                if b"cache-control" not in names:
                    headers.append((b"cache-control", b"no-store"))
                headers += [pair for pair in _HEADERS.items() if pair[0] not in names]
                message["headers"] = headers + self._extra
            await send(message)

        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADERS_MAX_BYTES:
            detail = f"A request's headers have at most {HEADERS_MAX_BYTES} bytes."
            await _refuse(send_with_headers, 431, "Request Header Fields Too Large", detail)
            return
        if scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send_with_headers)
            return
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                body = await _read_body(receive)
        except TimeoutError:
            await _refuse(
                send_with_headers, 408, "Request Timeout", "The request's body did not come in time."
            )
            return
        if body is None:
            detail = f"A request's body has at most {BODY_MAX_BYTES} bytes."
            await _refuse(send_with_headers, 413, "Content Too Large", detail)
            return
        await self._app(scope, _replay(body, receive), send_with_headers)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None when it is too large."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(chunks)
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read already, then what comes."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, status: int, title: str, detail: str) -> None:
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})
