"""The broker connection, by paho: one vendor client per attempt, every PUBACK judged, nothing queued behind our back.

Theory of operation. A keeper task makes a `_Attempt`, waits until it is over, pauses, makes the next. An attempt owns
one paho client with a thread of its own; its callbacks do nothing but hand a report to the event loop, guarded,
because an exception in a callback kills paho's thread in silence while `is_connected()` stays true. A publish is
refused while the link is down: paho would queue it in RAM and send it later, a second outbox that no store knows.

    attempt:  TCP, TLS ──▶ CONNACK ──▶ SUBSCRIBE own ack ──▶ SUBACK: LinkUp ──▶ … ──▶ LinkDown

MQTT 5, because 3.1.1 answers "success" for messages that the broker refused or threw away. Reason code 0x10 (no
matching subscribers) is no success either. The Receive Maximum of the CONNACK is reported, and counted by the caller:
paho ignores it. No answer to anything in flight for `ANSWER_TIMEOUT_S` means a dead thread or a hung broker: the
attempt is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.adapters.paho_waiting import wait_by_poll
from edge_agent.ports import AckArrived, Answered, LinkDown, LinkUp, Publication, UplinkReport
from edge_agent.wire.status import KEEPALIVE_S

RECONNECT_FIRST_S: Final = 0.5
"""Pause after a connection ended …"""

RECONNECT_MAX_S: Final = 3.0
"""… doubling up to this while none lasts: a violation waits no longer than this for a broker that is back."""

STABLE_S: Final = 10.0
"""A connection that lasted this long was a good one: the next pause is the first again."""

CONNECT_TIMEOUT_S: Final = 10.0
"""From the first packet to the SUBACK."""

GOODBYE_S: Final = 1.0
"""A DISCONNECT leaves in milliseconds, or the network is gone anyway."""

ANSWER_TIMEOUT_S: Final = 15.0
"""Three keepalives: longer than any broker needs for a PUBACK, shorter than anybody's patience."""

RECEIVE_MAXIMUM_DEFAULT: Final = 65_535
"""What a CONNACK without the property means (MQTT 5.0, 3.2.2.3.3)."""

NO_MATCHING_SUBSCRIBERS: Final = 0x10

_log = logging.getLogger("guardwatch.uplink")


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Where the broker is and who we are there.

    `ack_topic` None: nothing is subscribed to (broker mode). `web_path` is set for WebSockets, None for plain MQTT.
    """

    host: str
    port: int
    client_id: str
    ack_topic: str | None
    web_path: str | None = None
    is_tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class PahoUplink:
    """The `Uplink` port on paho-mqtt. Use on one event loop."""

    def __init__(self, access: BrokerAccess) -> None:
        self._access = access
        self._attempt: _Attempt | None = None
        self._keeper: asyncio.Task[None] | None = None

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        """Begin to connect, and go on until `close`."""
        assert self._keeper is None
        self._keeper = asyncio.create_task(self._keep_connected(will, report), name="uplink")

    def publish(self, publication: Publication) -> None:
        """Hand one message to paho's thread."""
        if self._attempt is not None:
            self._attempt.publish(publication)

    async def close(self) -> None:
        """Disconnect politely, so that the broker sends no last will."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None

    async def _keep_connected(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        pause_s = RECONNECT_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            try:
                attempt = self._attempt = _Attempt(self._access, will, report)
            except (
                OSError,
                ValueError,
            ) as error:  # certificates that are being replaced are there in a moment
                report(LinkDown(f"the certificates cannot be read: {error}"))
                await asyncio.sleep(RECONNECT_MAX_S)
                continue
            try:
                reason = await attempt.run()
            finally:
                self._attempt = None
                await attempt.finish()
            report(LinkDown(reason))
            if attempt.up_since is not None and loop.time() - attempt.up_since > STABLE_S:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)


class _Attempt:
    """One connection, from TCP to its end. Used once."""

    def __init__(
        self, access: BrokerAccess, will: Publication, report: Callable[[UplinkReport], None]
    ) -> None:
        self._access = access
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._in_flight: dict[int, Publication] = {}
        self._heard = self._loop.time()
        self._receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        self._is_looping = False
        self.up_since: float | None = None
        self._client = self._make_client(will)

    async def run(self) -> str:
        """Connect and stay connected; why it ended."""
        threading.Thread(target=self._connect, name="uplink connect", daemon=True).start()
        while not self._over.done():
            await asyncio.wait({self._over}, timeout=1.0)
            silence_s = self._loop.time() - self._heard
            if self.up_since is None and silence_s > CONNECT_TIMEOUT_S:
                return "the broker does not answer"
            if self._in_flight and silence_s > ANSWER_TIMEOUT_S:
                return "no PUBACK"
        return self._over.result()

    def publish(self, publication: Publication) -> None:
        """Publish at QoS 1, unless the connection is over."""
        if self.up_since is None or self._over.done():
            return
        properties = None
        if publication.expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = publication.expiry_s
        info = self._client.publish(
            publication.topic, publication.payload, qos=1, retain=publication.retained, properties=properties
        )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(f"publish failed: {info.rc.name}")
            return
        if not self._in_flight:
            self._heard = self._loop.time()
        self._in_flight[info.mid] = publication

    async def finish(self) -> None:
        """Say goodbye if the connection stands, and end paho's thread."""
        self._end("closed")
        if self._is_looping:
            self._client.disconnect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await asyncio.to_thread(self._client.loop_stop)
        self._shut()

    def _shut(self) -> None:
        """Close the socket ourselves when the peer did not; paho's thread ends with it."""
        wire = self._client.socket()
        if isinstance(wire, socket.socket):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def _make_client(self, will: Publication) -> Client:
        wait_by_poll()
        access = self._access
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="tcp" if access.web_path is None else "websockets",
            reconnect_on_failure=False,
        )
        if access.web_path is not None:
            client.ws_set_options(path=access.web_path)
        if access.is_tls:
            client.tls_set(_text(access.ca_file), _text(access.cert_file), _text(access.key_file))
        if access.username is not None:
            client.username_pw_set(access.username, access.password)
        client.max_inflight_messages_set(RECEIVE_MAXIMUM_DEFAULT)
        client.connect_timeout = CONNECT_TIMEOUT_S / 2
        client.will_set(will.topic, will.payload, qos=1, retain=will.retained)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    # other threads: hand over and return

    def _connect(self) -> None:
        """Name resolution, TCP and TLS block; a daemon thread may hang in them without keeping the process."""
        host, port = self._access.host, self._access.port
        try:
            self._client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=True)
        except (OSError, ValueError) as error:  # ValueError: what the websocket handshake raises
            self._hand_over(self._end, f"cannot connect to {host}:{port}: {_why(error)}")
        else:
            self._hand_over(self._start_loop)

    def _hand_over(self, handle: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            self._loop.call_soon_threadsafe(handle, *values)

    def _on_socket_open(self, client: Client, userdata: object, wire: object) -> None:
        del client, userdata
        if isinstance(wire, socket.socket):
            wire.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # Nagle would hold a PUBLISH up to 40 ms

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags
        self._hand_over(self._connected, code, getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT))

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, mid, properties
        self._hand_over(self._subscribed, codes)

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        del client, userdata
        self._hand_over(self._pass_on, AckArrived(bytes(message.payload)))

    def _on_publish(
        self, client: Client, userdata: object, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        del client, userdata, properties
        self._hand_over(self._answered, mid, code)

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        self._hand_over(self._end, f"disconnected: {code}")

    # the event loop again

    def _start_loop(self) -> None:
        if self._over.done():
            self._shut()
            return
        self._is_looping = True
        self._client.loop_start()

    def _connected(self, code: ReasonCode, receive_maximum: int) -> None:
        self._heard = self._loop.time()
        if code.is_failure:
            self._end(f"the broker refuses us: {code}")
            return
        self._receive_maximum = receive_maximum
        if self._access.ack_topic is None:
            self._go_up()
        else:
            self._client.subscribe(self._access.ack_topic, options=SubscribeOptions(qos=1))

    def _subscribed(self, codes: list[ReasonCode]) -> None:
        if any(code.is_failure for code in codes):
            _log.error("subscription refused topic=%s: no ack will ever come", self._access.ack_topic)
        self._go_up()

    def _go_up(self) -> None:
        if not self._over.done():
            self.up_since = self._heard = self._loop.time()
            self._report(LinkUp(self._receive_maximum))

    def _pass_on(self, arrived: AckArrived) -> None:
        if not self._over.done():
            self._report(arrived)

    def _answered(self, mid: int, code: ReasonCode) -> None:
        self._heard = self._loop.time()
        publication = self._in_flight.pop(mid, None)
        if publication is None or self._over.done():
            return
        refusal = str(code) if code.is_failure else None
        is_heard = refusal is None and code.value != NO_MATCHING_SUBSCRIBERS
        self._report(Answered(publication, refusal, is_heard))

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


_NOT_YET_VALID: Final = 9
"""X509_V_ERR_CERT_NOT_YET_VALID (openssl-verification-options(1))."""


def _why(error: Exception) -> str:
    """Why there is no connection. A clock that was lost at boot takes every certificate for one of the future."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet by this machine's clock: the clock is wrong, or the certificate"
    return str(error)
