"""Connecting over TCP, plain or in TLS, with our deadlines and words.

Modbus/TCP Security (MB-TCP-Security-v36) is Modbus/TCP's framing inside mutual TLS, version 1.2 or later, on port 802. Under
TLS 1.3 a server that wants a client certificate says so only after the client's handshake is over: connecting works, and
then the connection is closed. That case has words of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.adapters.fieldbus_connection import Connection

CONNECT_TIMEOUT_S: Final = 1.5
"""A connect on a plant network takes milliseconds; a SYN that was lost once is sent again after one second."""

HANDSHAKE_TIMEOUT_S: Final = 1.5
"""More for TLS: small controllers take up to a second for a signature."""


def tls_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """A client's context from PEM files: the authority (None: the system's), and what we show.

    Raises OSError (ssl.SSLError too) when a file cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        # a key that is locked by a password is refused: else OpenSSL would ask for it on the terminal, and wait
        context.load_cert_chain(cert_file, key_file, password="")
    return context


class TcpDial:
    """A TCP endpoint, in TLS if `tls` is given."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.name = f"{host}:{port}"
        self._host = host
        self._port = port
        self._tls = tls

    @property
    def closed_early(self) -> str:
        """What a close before any answer probably means."""
        if self._tls is not None:
            return (
                "TLS refused: closed during the handshake or right after it — the device wants a client certificate "
                "(cert_file, key_file), or refuses this one"
            )
        return "connected, and closed before any answer — has the device no connection left, or another protocol?"

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        """A connection that is up, see `fieldbus_stream.Dial`."""
        loop = asyncio.get_running_loop()
        patience_s = CONNECT_TIMEOUT_S + (HANDSHAKE_TIMEOUT_S if self._tls is not None else 0)
        async with asyncio.timeout(patience_s):
            _, connection = await loop.create_connection(make, self._host, self._port, ssl=self._tls)
        return connection
