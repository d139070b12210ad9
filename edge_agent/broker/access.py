"""Where a broker is, and a paho client that reaches it: TCP or WebSocket, TLS, identity, over a `Wire`."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.broker.wire import Limits, Wire

CONNECT_TIMEOUT_S: Final = 10.0
"""From the first packet to the SUBACK; TCP alone has half of it."""

_NOT_YET_VALID: Final = 9
"""X509_V_ERR_CERT_NOT_YET_VALID (openssl-verification-options(1))."""


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Where the broker is and who we are there. `web_path` is set for WebSockets, None for plain MQTT."""

    host: str
    port: int
    client_id: str
    web_path: str | None = None
    is_tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class WiredClient(Client):
    """paho over a `Wire`, which it makes when it connects; MQTT 5. `manual_ack`: PUBACKs are not paho's to send.

    Raises `OSError` and `ValueError` for certificates that cannot be read.
    """

    def __init__(self, access: BrokerAccess, limits: Limits, *, manual_ack: bool = False) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=access.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="tcp" if access.web_path is None else "websockets",
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        self._limits = limits
        self.wire: Wire | None = None
        self.connect_timeout = CONNECT_TIMEOUT_S / 2
        if access.web_path is not None:
            self.ws_set_options(path=access.web_path)
        if access.is_tls:
            # a key that is locked by a password is refused: else OpenSSL would ask for it on the terminal, and wait
            files = (_text(access.ca_file), _text(access.cert_file), _text(access.key_file))
            self.tls_set(*files, keyfile_password="")
        if access.username is not None:
            self.username_pw_set(access.username, access.password)

    def _create_socket(self) -> Wire:
        """The vendor has no setting for this; whatever it makes is wrapped here."""
        self.wire = Wire(super()._create_socket(), self._limits)
        return self.wire

    def _create_socket_connection(self) -> socket.socket:
        """Below TLS and WebSocket: Nagle would hold what is written up to 40 ms."""
        made = super()._create_socket_connection()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


def explain(error: Exception) -> str:
    """Why there is no connection. A clock that was lost at boot takes every certificate for one of the future."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet by this machine's clock: the clock is wrong, or the certificate"
    return str(error)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
