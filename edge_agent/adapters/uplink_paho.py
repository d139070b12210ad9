"""The broker connection, by paho: one vendor client per attempt, every PUBACK judged, nothing queued behind our back.

Theory of operation. A keeper task makes an `_Attempt`, waits until it is over, pauses, makes the next. An attempt owns
one paho client. A thread connects it (name resolution, TCP and TLS block), then the event loop drives it by paho's
functions for that, over a `broker.wire.Wire`; PUBLISH packets and their PUBACKs go beside paho. A
publish is refused while the link is down: paho would queue it in RAM and send it later, a second outbox that no store
knows.

    attempt:  thread: TCP, TLS ──▶ loop: CONNACK ──▶ SUBSCRIBE own ack ──▶ SUBACK: LinkUp ──▶ … ──▶ LinkDown

MQTT 5, because 3.1.1 answers "success" for messages that the broker refused or threw away. Reason code 0x10 (no
matching subscribers) is no success either. The Receive Maximum of the CONNACK, `IN_FLIGHT_MAX` at most, is reported, and counted by the caller.
No answer to anything in flight for `ANSWER_TIMEOUT_S` means a hung broker: the attempt is over. While the line still carries
what was written before, that time does not begin: a page of 128 KiB takes minutes by a poor radio, and would be begun anew for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.adapters.publish_packet import PUBACK, Puback, decode_puback, encode_publish
from edge_agent.broker.access import CONNECT_TIMEOUT_S, BrokerAccess, WiredClient, explain
from edge_agent.broker.wire import Limits, ProtocolError, Wire
from edge_agent.ports import AckArrived, Answered, LinkDown, LinkUp, Publication, UplinkReport
from edge_agent.wire.status import KEEPALIVE_S

RECONNECT_FIRST_S: Final = 0.5
"""Pause after a connection ended …"""

RECONNECT_MAX_S: Final = 3.0
"""… doubling up to this while none lasts: a violation waits no longer than this for a broker that is back."""

STABLE_S: Final = 10.0
"""A connection that lasted this long was a good one: the next pause is the first again."""

BEAT_S: Final = 1.0
"""How often paho looks whether the broker still answers its pings."""

LOOK_S: Final = 1.0
"""How often silence, and the progress of what is written, are looked at."""

ANSWER_TIMEOUT_S: Final = 15.0
"""Three keepalives: longer than any broker needs for a PUBACK, shorter than anybody's patience."""

RECEIVE_MAXIMUM_DEFAULT: Final = 65_535
"""What a CONNACK without the property means (MQTT 5.0, 3.2.2.3.3)."""

LIMITS: Final = Limits(read_bytes=65_536, packet_bytes=128 * 1024)
"""At once more than the PUBACKs of a whole window, so that a broker that floods us leaves turns to others. What else comes is
acks, of some hundred bytes: whoever writes a large packet fills no memory, and the broker is told so (MQTT 5.0, 3.1.2.11.4)."""

IN_FLIGHT_MAX: Final = 1000
"""Unanswered publishes, however many the broker allows: what a slow line has not carried yet waits in memory, up to 48 KiB each."""

NO_MATCHING_SUBSCRIBERS: Final = 0x10

_FAILURE_FIRST: Final = 0x80
"""Reason codes from here on are failures (MQTT 5.0, 2.4)."""

_MIDS: Final = 65_535
"""Message ids are 1 to this (MQTT 5.0, 2.2.1)."""

_log = logging.getLogger("guardwatch.uplink")


class PahoUplink:
    """The `Uplink` port on paho-mqtt. Use on one event loop.

    `ack_topic` None: nothing is subscribed to (broker mode).
    """

    def __init__(self, access: BrokerAccess, ack_topic: str | None) -> None:
        self._access = access
        self._ack_topic = ack_topic
        self._attempt: _Attempt | None = None
        self._keeper: asyncio.Task[None] | None = None

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        """Begin to connect, and go on until `close`."""
        assert self._keeper is None
        self._keeper = asyncio.create_task(self._keep_connected(will, report), name="uplink")

    def publish(self, publication: Publication) -> None:
        """Have one message written with all others of this turn of the loop."""
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
                attempt = self._attempt = _Attempt(self._access, self._ack_topic, will, report)
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
                attempt.finish()
            report(LinkDown(reason))
            if attempt.up_since is not None and loop.time() - attempt.up_since > STABLE_S:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)


class _Attempt:
    """One connection, from TCP to its end. Used once."""

    def __init__(
        self,
        access: BrokerAccess,
        ack_topic: str | None,
        will: Publication,
        report: Callable[[UplinkReport], None],
    ) -> None:
        self._access = access
        self._ack_topic = ack_topic
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._in_flight: dict[int, Publication] = {}
        self._heard = self._loop.time()
        self._asked_bytes = self._arrived_bytes = 0
        """How much was written when something was heard last, and how much of all has arrived."""
        self._receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        self._mid = 0
        self._wire: Wire | None = None
        self._beat: asyncio.TimerHandle | None = None
        self.up_since: float | None = None
        self._client = self._make_client(will)

    async def run(self) -> str:
        """Connect and stay connected; why it ended."""
        threading.Thread(target=self._connect, name="uplink connect", daemon=True).start()
        while not self._over.done():
            await asyncio.wait({self._over}, timeout=LOOK_S)
            self._note_progress()
            silence_s = self._loop.time() - self._heard
            if self.up_since is None and silence_s > CONNECT_TIMEOUT_S:
                return "the broker does not answer"
            if self._in_flight and silence_s > ANSWER_TIMEOUT_S:
                return "no PUBACK"
        return self._over.result()

    def publish(self, publication: Publication) -> None:
        """Publish at QoS 1, unless the connection is over."""
        if self.up_since is None or self._over.done() or self._wire is None:
            return
        mid = self._mid = self._free_mid()
        self._wire.send(
            encode_publish(
                publication.topic,
                publication.payload,
                mid,
                retain=publication.retained,
                expiry_s=publication.expiry_s,
            )
        )
        if not self._in_flight:
            self._note_heard()
        self._in_flight[mid] = publication

    def finish(self) -> None:
        """Say goodbye if the connection stands, and let go of the socket."""
        self._end("closed")
        if self._beat is not None:
            self._beat.cancel()
            self._client.disconnect()  # writes and closes at once

    def _note_heard(self) -> None:
        self._heard = self._loop.time()
        if self._wire is not None:
            self._asked_bytes = self._wire.given_bytes

    def _note_progress(self) -> None:
        """A broker cannot answer what has not arrived; once all that waits for an answer has, its time begins."""
        if self._wire is None or self._over.done() or self._arrived_bytes >= self._asked_bytes:
            return
        arrived_bytes = self._wire.arrived_bytes()
        if arrived_bytes > self._arrived_bytes:
            self._arrived_bytes, self._heard = arrived_bytes, self._loop.time()

    def _free_mid(self) -> int:
        """The next message id that no unanswered publish has: SUBSCRIBE, which paho numbers, was answered before."""
        mid = self._mid % _MIDS + 1
        while mid in self._in_flight:
            mid = mid % _MIDS + 1
        return mid

    def _make_client(self, will: Publication) -> WiredClient:
        client = WiredClient(self._access, LIMITS)
        client.will_set(will.topic, will.payload, qos=1, retain=will.retained)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _connect(self) -> None:
        """In a thread: name resolution, TCP and TLS block; a daemon may hang in them without keeping the process."""
        host, port = self._access.host, self._access.port
        try:
            self._client.connect(
                host, port, keepalive=KEEPALIVE_S, clean_start=True, properties=_make_limits()
            )
        except (OSError, ValueError) as error:  # ValueError: what the websocket handshake raises
            self._hand_over(self._end, f"cannot connect to {host}:{port}: {explain(error)}")
        else:
            self._hand_over(self._attach)

    def _hand_over(self, handle: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            self._loop.call_soon_threadsafe(handle, *values)

    # the event loop again

    def _attach(self) -> None:
        wire = self._client.wire
        assert wire is not None, "it is connected"
        if self._over.done():
            wire.close()
            return
        self._wire = wire
        wire.attach(self._loop, self._read)
        self._look_after()

    def _look_after(self) -> None:
        """Let paho ping a broker that has answered nothing of late, and miss its answer.

        One that answers publishes is there; on a slow line the answer to a ping comes behind a whole window of them.
        """
        self._beat = self._loop.call_later(BEAT_S, self._look_after)
        if self._loop.time() - self._heard >= KEEPALIVE_S:
            self._client.loop_misc()

    def _read(self) -> None:
        """Report what was answered, and let paho read the rest, in order."""
        wire = self._wire
        if wire is None or self._over.done():
            return
        if not wire.fill():
            self._loop.call_soon(self._read)
        try:
            while not self._over.done():
                if (packet := wire.next_packet(PUBACK)) is not None:
                    self._answered(decode_puback(packet))
                elif not wire.has_for_paho:
                    return
                elif self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    self._end("the connection is lost")
        except ProtocolError as error:
            self._end(f"the broker breaks the protocol: {error}")

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags
        if code.is_failure:
            self._end(f"the broker refuses us: {code}")
            return
        self._receive_maximum = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        self._loop.call_soon(self._connected)  # not inside a callback of paho's

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, mid, properties
        if any(code.is_failure for code in codes):
            _log.error("subscription refused topic=%s: no ack will ever come", self._ack_topic)
        self._go_up()

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        del client, userdata
        if not self._over.done():
            self._report(AckArrived(bytes(message.payload)))

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        self._end(f"disconnected: {code}")

    def _connected(self) -> None:
        self._heard = self._loop.time()
        if self._ack_topic is None:
            self._go_up()
        elif not self._over.done():
            self._client.subscribe(self._ack_topic, options=SubscribeOptions(qos=1))

    def _go_up(self) -> None:
        if not self._over.done():
            self.up_since = self._heard = self._loop.time()
            self._report(LinkUp(min(self._receive_maximum, IN_FLIGHT_MAX)))

    def _answered(self, puback: Puback) -> None:
        self._note_heard()
        publication = self._in_flight.pop(puback.mid, None)
        if publication is not None:
            refusal = _refusal(puback.code) if puback.code >= _FAILURE_FIRST else None
            is_heard = refusal is None and puback.code != NO_MATCHING_SUBSCRIBERS
            self._report(Answered(publication, refusal, is_heard))

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)


def _make_limits() -> Properties:
    """What the broker is told in CONNECT that it must keep to."""
    limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    limits.MaximumPacketSize = LIMITS.packet_bytes
    return limits


def _refusal(code: int) -> str:
    """A reason code in words."""
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=code))
    except (KeyError, ValueError):  # paho knows no such code, or not for a PUBACK
        return f"reason code 0x{code:02x}"
