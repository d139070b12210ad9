"""Rows 11, 18, 19: the broker and what strangers put on it."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.chaos.faults.base import Fault
from tests.chaos.plant import AGENT, SITE, TOPICS, Plant

LOOPS: Final = 6
GATEWAY_CLIENT_ID: Final = "guardwatch-gateway"
CONNECT_S: Final = 10.0

GARBAGE: Final[Sequence[bytes]] = (
    b"",
    b"\xff\xfe\xfd",
    b"{",
    b"[" * 10_000,
    b'{"v":NaN}',
    b'{"v":1,"seq":99999999999999999999999}',
    b'{"v":1,"v":2}',
    b"null",
    b'{"v":1,"site":"changyi","agent":"gw-01","epoch":"x","seq":9223372036854775808}',
    b'{"v":1,"site":"elsewhere","agent":"gw-01","kind":"violation_raised"}',
    json.dumps({"pad": "x" * 60_000}).encode(),
)
"""What must be refused: no JSON, JSON that no parser may take, events of nobody. The largest fits the broker's limit."""

RETAINED: Final[Sequence[tuple[str, bytes]]] = (
    ("ack", b"{"),
    ("ack", b'{"to":"01J0000000000000000000000A","epoch":null,"seq":null,"hash":null,"reset":true}'),
    ("health", b'{"online":true}'),
    ("health", b"\x00" * 100),
    ("model", b'{"guards":1}'),
    ("state/mixer-18/door-1", b'{"state":"closed"}'),
    ("state/ghost/door-9", b'{"state":"closed"}'),
)


class Stranger:
    """A client that nobody asked."""

    def __init__(self, plant: Plant, client_id: str = "") -> None:
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.connect("127.0.0.1", plant.mqtt_port, clean_start=True)
        self._client.loop_start()

    def put(self, topic: str, payload: bytes, *, is_retained: bool = False) -> None:
        """Publish, and wait until it is out. Raises RuntimeError, ValueError when it cannot."""
        self._client.publish(topic, payload, qos=1, retain=is_retained).wait_for_publish(CONNECT_S)

    def leave(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()


class KillLoop(Fault):
    """The broker is killed again and again while it comes up."""

    row = 11
    lasts_s = (3.0, 6.0)

    def inject(self, plant: Plant) -> None:
        with plant.broker.hold:
            for _ in range(LOOPS):
                plant.broker.kill()
                plant.broker.start()
                time.sleep(self.draw.uniform(0.05, 0.6))

    def heal(self, plant: Plant) -> None:
        pass


class WipedBroker(Fault):
    """The broker is killed, and comes back without anything it had stored: what was retained, too."""

    row = 11
    lasts_s = (0.5, 4.0)

    def inject(self, plant: Plant) -> None:
        plant.broker.hold.acquire()
        plant.broker.kill()
        for left in plant.broker_disk.folder.glob("mosquitto.db*"):
            left.unlink()

    def heal(self, plant: Plant) -> None:
        plant.broker.start()
        plant.broker.hold.release()


class _StrangersWork(Fault):
    """Done while the broker is there and nobody kills it."""

    lasts_s = (2.0, 6.0)

    def work(self, plant: Plant) -> None:
        raise NotImplementedError

    def inject(self, plant: Plant) -> None:
        with plant.broker.hold:
            plant.broker.wait_ready()
            self.work(plant)

    def heal(self, plant: Plant) -> None:
        pass


class RetainedGarbage(_StrangersWork):
    """Junk retained on every status topic, and taken away again."""

    row = 11

    def work(self, plant: Plant) -> None:
        self._put(plant, RETAINED)

    def heal(self, plant: Plant) -> None:
        with plant.broker.hold:
            plant.broker.wait_ready()
            self._put(plant, [(name, b"") for name, _ in RETAINED if name.startswith("state/")])

    @staticmethod
    def _put(plant: Plant, payloads: Sequence[tuple[str, bytes]]) -> None:
        stranger = Stranger(plant)
        for name, payload in payloads:
            stranger.put(f"{TOPICS}/{name}", payload, is_retained=True)
        stranger.leave()


class TakenOver(_StrangersWork):
    """Somebody connects with the client id of the agent or the gateway, several times."""

    row = 11

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._client_id = draw.choice((f"{SITE}-{AGENT}", GATEWAY_CLIENT_ID))

    @property
    def name(self) -> str:
        return f"take-over of {self._client_id}"

    def work(self, plant: Plant) -> None:
        for _ in range(LOOPS):
            stranger = Stranger(plant, self._client_id)
            time.sleep(self.draw.uniform(0.1, 0.8))
            stranger.leave()


class Poison(_StrangersWork):
    """Payloads that are no events, on the agent's and on a stranger's event topic; and old events once more."""

    row = 19

    def work(self, plant: Plant) -> None:
        stranger = Stranger(plant)
        for payload in [*GARBAGE, *self._old(plant)]:
            stranger.put(f"{TOPICS}/events", payload)
        stranger.put(f"guardwatch/v1/{SITE}/nobody/events", b"{}")
        stranger.leave()

    @staticmethod
    def _old(plant: Plant) -> list[bytes]:
        """Events that were sent before; none while the store cannot be read."""
        try:
            with closing(sqlite3.connect(f"file:{plant.store}?mode=ro", uri=True)) as store:
                return [
                    row[0] for row in store.execute("SELECT payload FROM event ORDER BY random() LIMIT 20")
                ]
        except sqlite3.Error:
            return []


class ReconnectStorm(_StrangersWork):
    """Many clients connect at once, publish something and go, again and again."""

    row = 18
    crowd: Final = 30

    def work(self, plant: Plant) -> None:
        for _ in range(3):
            strangers = [Stranger(plant) for _ in range(self.crowd)]
            for stranger in strangers:
                stranger.put("elsewhere/v1/hello", b"{}")
                stranger.leave()
