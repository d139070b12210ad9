"""A subscriber that stamps what arrives, and acknowledges it as a gateway would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.wire.status import Ack, encode_status

TOPICS: Final = "guardwatch/v1/bench/gw-01"

ACK_PERIOD_S: Final = 0.02
"""A gateway acknowledges what it has committed, not each event."""

BACKLOG_MAX: Final = 100
"""Events of a stream that is even: those of the two seconds that a health is old."""


class Seen(NamedTuple):
    """A door's change as it arrived."""

    at_ns: int
    device: int
    point: int
    closed: bool


class Counts(NamedTuple):
    """Polls since the start, and those that were late."""

    at_ns: int
    polls: int
    late: int


class Plant(Protocol):
    """What must have been told."""

    @property
    def devices(self) -> int: ...

    @property
    def points(self) -> int: ...


class Observer:
    """One client in a thread of its own; use as a context manager."""

    def __init__(self, port: int) -> None:
        self.seen: list[Seen] = []
        self.last_ns = 0
        self._port = port
        self._told: set[str] = set()
        self._counts = Counts(0, 0, 0)
        self._backlog = -1
        self._ack: Ack | None = None
        self._over = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id="bench-observer", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        for channel in ("events", "health", "state/+/+"):
            self._client.subscribe(f"{TOPICS}/{channel}", qos=1)
        self._client.loop_start()
        threading.Thread(target=self._acknowledge, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._client.disconnect()
        self._client.loop_stop()

    def has_told_all(self, plant: Plant) -> Callable[[], bool]:
        """Whether every guard has been shown in a state that is known."""
        return lambda: len(self._told) >= plant.devices * plant.points

    def is_even(self) -> bool:
        """Whether the agent's stream has caught up with what happens."""
        return 0 <= self._backlog <= BACKLOG_MAX

    def progress(self) -> str:
        """How far the start has come: the events that wait, and the guards that were told."""
        return (
            f"{max(0, self._backlog)} events wait, polls {self._counts.polls}, guards told {len(self._told)}"
        )

    def counts(self) -> Counts:
        """The counts of the newest health."""
        return self._counts

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        at_ns = time.monotonic_ns()
        channel = message.topic.removeprefix(f"{TOPICS}/")
        if channel == "events":
            self._take_event(at_ns, bytes(message.payload))
        elif channel == "health":
            health = json.loads(message.payload)
            if health["online"]:
                self._counts = Counts(at_ns, health["polls"], health["overruns"])
                acked = health["acked"]
                self._backlog = health["seq"] - acked["seq"] if acked else -1
        elif channel not in self._told and b'"state":"unknown"' not in message.payload:
            self._told.add(channel)
            self.last_ns = at_ns

    def _take_event(self, at_ns: int, payload: bytes) -> None:
        event = json.loads(payload)
        if event["kind"] == "guard_changed":
            device, point = int(event["machine"][1:]), int(event["guard"][1:])
            self.seen.append(Seen(at_ns, device, point, closed=event["state"] == "closed"))
        self._ack = Ack(event["epoch"], event["epoch"], event["seq"], event["hash"], reset=False)

    def _acknowledge(self) -> None:
        """As a gateway: what one commit holds, with one ack."""
        while not self._over.wait(ACK_PERIOD_S):
            ack, self._ack = self._ack, None
            if ack is not None:
                self._client.publish(f"{TOPICS}/ack", encode_status(ack), qos=1, retain=True)
