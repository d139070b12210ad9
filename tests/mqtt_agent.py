"""The scripted agent on a real broker: one paho client, driven by the test's own thread.

`settle` runs the sender until everything is acked: it publishes health, sends what follows `acked` in a window, moves
where acks say, and begins again from `acked` when nothing moves for a while (go-back-N).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import Event
from edge_agent.wire.status import Ack, decode_ack, encode_status
from edge_agent.wire.topics import Channel, topic
from tests.scripted_agent import ScriptedAgent

CONNECT_S = 30.0
"""A broker that does not answer within this is not there."""

WAIT_S = 0.05
"""How long it waits for an ack before it looks around."""

RESEND_WAITS = 20
"""It sends again after so many waits without progress: a second (the product: 2, 4, … 30 s)."""

BEAT_WAITS = 10
"""It beats after so many waits: twice a second (the product: every 2 s)."""

IDLE_WAITS_MAX = 1200
"""A test that has waited for nothing so often, a minute, has found something."""


class MqttAgent:
    """A scripted agent that is connected; `name` tells clones apart for the broker."""

    def __init__(self, agent: ScriptedAgent, port: int, name: str = "agent") -> None:
        self.agent = agent
        self.acks: list[Ack] = []
        self.sent = 0
        self._last_sent: Event | None = None
        self._inbox: queue.SimpleQueue[Ack] = queue.SimpleQueue()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=True,
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._listen
        self._connected = threading.Event()
        self._client.on_message = self._hear
        self._port = port

    def __enter__(self) -> Self:
        self._client.connect_async("127.0.0.1", self._port, keepalive=5, clean_start=True)
        self._client.loop_start()
        assert self._connected.wait(CONNECT_S), "the broker does not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, channel: Channel, payload: bytes, *rest: str, retain: bool = False) -> None:
        """Publish anything on one of its topics; lost while there is no connection."""
        if self._client.is_connected():
            self._client.publish(
                topic(self.agent.store.site, self.agent.store.agent, channel, *rest), payload, 1, retain
            )

    def beat(self) -> None:
        """Publish its health."""
        self.publish(Channel.HEALTH, encode_status(self.agent.health()), retain=True)

    def send(self, *, again: bool = False) -> None:
        """Send what follows `acked` and was not sent yet, or (`again`) all of it."""
        window = self.agent.to_send()
        for event in window if again else window[self._unacked_sent() :]:
            info = self._client.publish(self._topic(Channel.EVENTS), event.payload, qos=1)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            self.sent += 1
            self._last_sent = event

    def settle(self, until: Callable[[], bool] | None = None) -> None:
        """Run the sender until everything is acked (or `until` holds)."""
        is_done = until or self.is_settled
        idle = 0
        self.beat()
        self.send(again=True)
        while not is_done():
            assert idle < IDLE_WAITS_MAX, (
                f"not settled: acked {self.agent.acked}, {len(self.agent.to_send())} to send"
            )
            if self._take_acks(WAIT_S):
                self.send()
                continue
            idle += 1
            if idle % BEAT_WAITS == 0:
                self.beat()
            if idle % RESEND_WAITS == 0:
                self.send(again=True)

    def is_settled(self) -> bool:
        """Everything that it can send is acked."""
        self._take_acks(0.0)
        return not self.agent.to_send()

    def _unacked_sent(self) -> int:
        window = list(self.agent.to_send())
        return window.index(self._last_sent) + 1 if self._last_sent in window else 0

    def _take_acks(self, wait_s: float) -> bool:
        """Take what came; True when `acked` moved."""
        before = self.agent.acked
        try:
            ack = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                self.acks.append(ack)
                self.agent.take(ack)
                ack = self._inbox.get_nowait()
        except queue.Empty:
            return self.agent.acked != before

    def _listen(self, client: Client, *_: object) -> None:
        client.subscribe(self._topic(Channel.ACK), qos=1)
        self._connected.set()

    def _hear(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        del client, userdata
        ack = decode_ack(bytes(message.payload))
        if not isinstance(ack, DecodeError):
            self._inbox.put(ack)

    def _topic(self, channel: Channel) -> str:
        return topic(self.agent.store.site, self.agent.store.agent, channel)
