"""The broker, by paho: messages in, PUBACKed only when told to; retained acks out.

Theory of operation. A keeper task makes an `_Attempt`, waits until it is over, pauses, makes the next. An attempt owns
one paho client. A thread connects it (name resolution, TCP and TLS block), then the event loop drives it by paho's
functions for that, over a `broker.wire.Wire`, which takes the messages out in pieces. An inbox above its limit reads no
more, which holds up TCP and with it the broker. A PUBACK goes out only on the connection that brought the message, since
message ids are reused by the next.

While nobody takes messages (a full disk, a slow database) the connection stays. A broker that keeps to our Receive
Maximum sends no more before the first PUBACK, and its answers to pings are read as always. QoS 0, which has no PUBACK,
and a broker that counts wrongly (mosquitto#2301) may fill the inbox above its limit; then nothing is read, and pings
only tell the broker that we are there: their answers lie behind messages that nobody takes.

    attempt:  thread: TCP, TLS ──▶ loop: CONNACK ──▶ SUBSCRIBE ──▶ SUBACK: up ──▶ … ──▶ disconnected: over

Clean start and no session: nothing is ever needed from the broker's memory, agents send again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.broker.access import CONNECT_TIMEOUT_S, BrokerAccess, WiredClient, explain
from edge_agent.broker.wire import Limits, ProtocolError, Wire
from edge_agent.wire.codec import DECODE_MAX_BYTES
from edge_agent.wire.topics import ROOT
from gateway.adapters.publish_packet import PINGREQ, PUBLISH, Publish, decode_publish, encode_pubacks
from gateway.ports import Message

LIMITS: Final = Limits(read_bytes=262_144, packet_bytes=2 * 1024 * 1024)
"""At once some five hundred events, a batch, which takes a few milliseconds: beside a busy writer the loop has few turns, and
what is read in one of them is journaled in one transaction. Nothing of ours is above 48 KiB; what is somewhat too large still
comes, to be refused and kept; the rest would only fill the memory, and the broker is told so (MQTT 5.0, 3.1.2.11.4)."""

SUBSCRIPTIONS = tuple(f"{ROOT}/+/+/{tail}" for tail in ("events", "model", "model/+", "health", "health/+"))
"""What the gateway listens to; guards' retained states are for third parties, the stream says it better."""

KEEPALIVE_S = 10
"""A broker that is gone without a word is noticed within twice this."""

RECONNECT_FIRST_S = 0.5
"""Pause after a connection ended …"""

RECONNECT_MAX_S = 3.0
"""… doubling up to this while none lasts: ingest goes on within this of the broker's return."""

STABLE_S = 10.0
"""A connection that lasted this long was a good one: the next pause is the first again."""

BEAT_S = 1.0
"""How often paho looks whether the broker still answers its pings."""

INBOX_MAX = 2000
"""Messages taken from the broker and not yet done with: at `KEPT_BYTES` at most 128 MiB, in practice 2 MiB."""

KEPT_BYTES = DECODE_MAX_BYTES + 1
"""Of a payload: one longer than what anybody decodes is refused, and no more of it is stored."""

RECEIVE_MAX = 1000
"""Messages that the broker may send before we PUBACK the first (MQTT 5.0, 3.1.2.11.3): two batches, so that one is on
its way while another is journaled; half of what the inbox holds."""

BATCH_MAX = 500
"""Messages in one transaction: some 50 ms of work, so an ack is never far behind."""

FLOW_MIN = 8
"""So many messages at once are no single change but a flow, and more are on their way …"""

FLOW_WAIT_S = 0.01
"""… for which is waited so long. An agent has at most 256 on their way: a journal that took each handful at once would
sync the disk, and each agent an ack, ten times as often as it must."""

OUTBOUND_MAX = 1000
"""Acks waiting for the broker's PUBACK; beyond it new ones are dropped, and said again with the next batch."""

_log = logging.getLogger("guardwatch.intake")


class BrokerMessage(NamedTuple):
    """`gateway.ports.Message`, and what its PUBACK needs. A tuple, because one is made for every event."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    qos: int
    attempt: int


class PahoIntake:
    """The `Intake` port on paho-mqtt. Use on one event loop: `open`, then `batch` and `done`, then `close`."""

    def __init__(self, access: BrokerAccess) -> None:
        self.problem: str | None = "not connected yet"
        self._access = access
        self._inbox: deque[BrokerMessage] = deque()
        self._arrived = asyncio.Event()
        self._attempt: _Attempt | None = None
        self._attempts = 0
        self._keeper: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to connect, and go on until `close`."""
        assert self._keeper is None
        self._keeper = asyncio.create_task(self._keep_connected(), name="intake")

    async def close(self) -> None:
        """Disconnect; what is not done with is left to the agents to send again."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None

    async def batch(self) -> Sequence[Message]:
        """The next messages, at least one, at most `BATCH_MAX`."""
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        if FLOW_MIN <= len(self._inbox) < BATCH_MAX:
            await asyncio.sleep(FLOW_WAIT_S)
        return [self._inbox.popleft() for _ in range(min(BATCH_MAX, len(self._inbox)))]

    def done(self, messages: Iterable[Message]) -> None:
        """PUBACK them, if their connection still stands."""
        attempt = self._attempt
        if attempt is not None:
            attempt.acknowledge(
                [
                    message
                    for message in messages
                    if isinstance(message, BrokerMessage) and message.attempt == attempt.number
                ]
            )

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish retained at QoS 1 while connected; dropped when not (the protocol says it again)."""
        if self._attempt is not None:
            self._attempt.publish(topic, payload)

    async def _keep_connected(self) -> None:
        pause_s = RECONNECT_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            self._attempts += 1
            try:
                attempt = self._attempt = _Attempt(self._access, self._attempts, self._take, self._say_up)
            except (
                OSError,
                ValueError,
            ) as error:  # certificates that are being replaced are there in a moment
                self.problem = f"the certificates cannot be read: {error}"
                await asyncio.sleep(RECONNECT_MAX_S)
                continue
            try:
                self.problem = await attempt.run()
            finally:
                self._attempt = None
                self._inbox.clear()  # retained ones come again, events are sent again
                attempt.finish()
            _log.warning("broker connection over reason=%r", self.problem)
            if attempt.up_since is not None and loop.time() - attempt.up_since > STABLE_S:
                pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)

    def _take(self, message: BrokerMessage) -> None:
        self._inbox.append(message)
        self._arrived.set()

    def _say_up(self) -> None:
        self.problem = None
        _log.info("broker connected host=%s port=%d", self._access.host, self._access.port)


class _Attempt:
    """One connection, from TCP to its end. Used once."""

    def __init__(
        self,
        access: BrokerAccess,
        number: int,
        take: Callable[[BrokerMessage], None],
        say_up: Callable[[], None],
    ) -> None:
        self.number = number
        self.up_since: float | None = None
        self._access = access
        self._take = take
        self._say_up = say_up
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._in_hand = 0
        self._is_held_up = False
        self._beat: asyncio.TimerHandle | None = None
        self._client = self._make_client()

    async def run(self) -> str:
        """Connect and stay connected; why it ended."""
        threading.Thread(target=self._connect, name="intake connect", daemon=True).start()
        await asyncio.wait({self._over}, timeout=CONNECT_TIMEOUT_S)
        if self.up_since is None and not self._over.done():
            return "the broker does not answer"
        return await self._over

    def acknowledge(self, messages: Sequence[BrokerMessage]) -> None:
        """PUBACK messages of this connection, and make room for others."""
        self._in_hand -= len(messages)
        if self._over.done() or self._client.wire is None:
            return
        self._client.wire.send(encode_pubacks(message.mid for message in messages if message.qos > 0))
        if self._is_held_up and self._in_hand < INBOX_MAX:
            self._is_held_up = False
            self._client.wire.resume()
            self._loop.call_soon(self._read)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish retained at QoS 1, unless the connection is over."""
        if self.up_since is None or self._over.done():
            return
        info = self._client.publish(topic, payload, qos=1, retain=True)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            self._end(f"publish failed: {info.rc.name}")

    def finish(self) -> None:
        """Say goodbye if the connection stands, and let go of the socket."""
        self._end("closed")
        if self._beat is not None:
            self._beat.cancel()
            self._client.disconnect()  # writes and closes at once

    def _make_client(self) -> WiredClient:
        client = WiredClient(self._access, LIMITS, manual_ack=True)
        client.max_queued_messages_set(OUTBOUND_MAX)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    def _connect(self) -> None:
        """In a thread: name resolution, TCP and TLS."""
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
        wire.attach(self._loop, self._read)
        self._look_after()

    def _look_after(self) -> None:
        """Let paho ping the broker and miss its answers, unless they lie behind messages that nobody takes."""
        self._beat = self._loop.call_later(BEAT_S, self._look_after)
        if not self._is_held_up:
            self._client.loop_misc()
        elif self._client.wire is not None:
            self._client.wire.send(PINGREQ)  # paho would wait for the answer

    def _read(self) -> None:
        wire = self._client.wire
        if wire is None or self._over.done() or self._is_held_up:
            return
        if not wire.fill():
            self._loop.call_soon(self._read)
        try:
            self._pass_on(wire)
        except ProtocolError as error:
            self._end(f"the broker breaks the protocol: {error}")
        if self._in_hand >= INBOX_MAX and not self._over.done():
            self._is_held_up = True
            wire.pause()

    def _pass_on(self, wire: Wire) -> None:
        """Hand over what was read, in order, messages while there is room for them. Raises `ProtocolError`."""
        while not self._over.done():
            if self._in_hand < INBOX_MAX and (packet := wire.next_packet(PUBLISH)) is not None:
                self._in_hand += 1
                self._take(self._read_as_message(decode_publish(packet)))
            elif not wire.has_for_paho:
                return
            elif self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._end("the connection is lost")

    def _read_as_message(self, publish: Publish) -> BrokerMessage:
        try:
            topic = publish.topic.decode()
        except UnicodeDecodeError:
            topic = ""  # refused like any foreign topic, but not here
        payload = publish.payload[:KEPT_BYTES]
        return BrokerMessage(topic, payload, publish.retain, publish.mid, publish.qos, self.number)

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        del client, userdata, flags, properties
        if code.is_failure:
            self._end(f"the broker refuses us: {code}")
        else:
            self._loop.call_soon(self._subscribe)  # not inside a callback of paho's

    def _subscribe(self) -> None:
        if not self._over.done():
            self._client.subscribe([(pattern, SubscribeOptions(qos=1)) for pattern in SUBSCRIPTIONS])

    def _on_subscribe(
        self,
        client: Client,
        userdata: object,
        mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        del client, userdata, mid, properties
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._end(f"the broker refuses our subscriptions: {', '.join(refused)}")
        elif not self._over.done():
            self.up_since = self._loop.time()
            self._say_up()

    def _on_publish(
        self, client: Client, userdata: object, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        del client, userdata, mid, properties
        if code.is_failure:
            _log.error("the broker refuses our acks reason=%s: agents will send again and again", code)

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

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)


def _make_limits() -> Properties:
    """What the broker is told in CONNECT that it must keep to."""
    limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    limits.MaximumPacketSize = LIMITS.packet_bytes
    limits.ReceiveMaximum = RECEIVE_MAX
    return limits
