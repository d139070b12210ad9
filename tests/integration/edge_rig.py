"""A real agent process, a plant over real Modbus, a real broker, and a tiny gateway that keeps the protocol's side.

The gateway here is written from the delivery protocol's page (§3.1, §3.2) and shares only the wire with the product.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.wire.codec import decode
from edge_agent.wire.event import AgentStarted, Event
from edge_agent.wire.status import Ack, Health, decode_health, encode_status
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank, Table
from tests.servers import Mosquitto

ROOT = Path(__file__).parents[2]
TOPICS = "guardwatch/v1/plant/gw-01"
DEADLINE_S = 60.0
"""Everything waited for happens within seconds; a loaded machine gets a minute."""

CONFIG = """\
site: plant
agent: gw-01
labels: {{zh: 一号, en: One}}
mqtt: {{url: "{mqtt}", delivery: {delivery}}}
store: {{path: var/gw-01.db, size_max_mb: 64}}
devices:
  plc1: {{url: "modbus+tcp://127.0.0.1:{modbus}", unit: 1, poll_ms: 50, timeout_ms: 500}}
machines:
  mixer:
    labels: {{zh: 混砂机, en: Mixer}}
    signals:
      running: {{at: plc1/di/4}}
      zero_speed: {{at: plc1/di/5}}
    guards:
      door-1:
        labels: {{zh: 检修门, en: Service door}}
        kind: interlocked_door
        channels: [{{at: plc1/di/0}}, {{at: plc1/di/1}}]
        rules: {{guard_open_motion: {{on_delay_ms: 200, off_delay_ms: 200}}}}
"""

_T = TypeVar("_T")


async def wait_for(look: Callable[[], object], what: str) -> None:
    """Look until there is something."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not look():  # noqa: ASYNC110 — what is waited for happens in other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


class TinyGateway:
    """Journals in order, acks by its own hash, resets by health. Its own client and thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._journal: list[Event] = []
        self._held: dict[tuple[str, int], str] = {}
        self._healths: list[Health] = []
        self._states: dict[str, bytes] = {}
        self.is_acking = True
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id="tiny-gateway", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect_async("127.0.0.1", self._port, clean_start=True)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def journal(self) -> list[Event]:
        with self._lock:
            return list(self._journal)

    @property
    def health(self) -> Health | None:
        with self._lock:
            return self._healths[-1] if self._healths else None

    def state(self, topic: str) -> dict[str, object] | None:
        """The retained document below the agent's prefix, None when there is none or it was cleared."""
        with self._lock:
            payload = self._states.get(f"{TOPICS}/{topic}")
        return json.loads(payload) if payload else None

    def claim(self, ack: Ack) -> None:
        """Say something that is not so."""
        self._answer(self._client, ack)

    def forget_everything(self) -> None:
        """A gateway whose journal was deleted."""
        with self._lock:
            self._journal.clear()
            self._held.clear()

    def bodies(self, kind: type[_T]) -> list[_T]:
        return [event.body for event in self.journal if isinstance(event.body, kind)]

    def _on_connect(
        self, client: Client, _: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        client.subscribe([(f"{TOPICS}/#", 1)])

    def _on_message(self, client: Client, _: object, message: MQTTMessage) -> None:
        if message.topic.endswith("/events"):
            self._receive(client, bytes(message.payload))
        elif message.topic.endswith("/health"):
            self._judge(client, bytes(message.payload))
        elif not message.topic.endswith("/ack"):
            with self._lock:
                self._states[message.topic] = bytes(message.payload)

    def _receive(self, client: Client, payload: bytes) -> None:
        event = decode(payload)
        assert isinstance(event, Event)
        with self._lock:
            key = (event.epoch, event.seq)
            if key not in self._held and self._is_next(event):
                self._held[key] = event.hash
                self._journal.append(event)
            last = event.position if key in self._held else None
            if last is None and self._journal:
                last = self._journal[-1].position
        if last is not None and self.is_acking:
            held = self._held[last.epoch, last.seq]
            self._answer(client, Ack(event.epoch, last.epoch, last.seq, held, reset=False))

    def _is_next(self, event: Event) -> bool:
        if event.seq > 1:
            return (event.epoch, event.seq - 1) in self._held
        after = event.body.after if isinstance(event.body, AgentStarted) else None
        return after is None or (after.epoch, after.seq) in self._held

    def _judge(self, client: Client, payload: bytes) -> None:
        health = decode_health(payload)
        assert isinstance(health, Health)
        with self._lock:
            self._healths.append(health)
            acked = health.acked
            if acked is None or self._held.get((acked.epoch, acked.seq)) == acked.hash:
                return
            last = self._journal[-1] if self._journal else None
        if last is None:
            self._answer(client, Ack(health.epoch, None, None, None, reset=True))
        else:
            self._answer(client, Ack(health.epoch, last.epoch, last.seq, last.hash, reset=True))

    @staticmethod
    def _answer(client: Client, ack: Ack) -> None:
        client.publish(f"{TOPICS}/ack", encode_status(ack), qos=1, retain=True)


class AgentProcess:
    """`python -m edge_agent run`, started, killed and stopped like a service."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.log = config.parent / "agent.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.start_as([sys.executable, "-m", "edge_agent", "run", str(self.config)])

    def start_as(self, command: list[str]) -> None:
        """Start it by this command, which runs `python -m edge_agent run CONFIG` in the end."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        assert self._child is not None
        return self._child.poll()

    def log_has(self, text: str) -> bool:
        """Whether it has said so."""
        return text in self.log.read_text()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.send(number)
        child = self._child
        assert child is not None
        return await asyncio.to_thread(child.wait, DEADLINE_S)


@dataclass
class Edge:
    """Everything around one agent."""

    bank: RegisterBank
    broker: Mosquitto
    gateway: TinyGateway
    agent: AgentProcess
    folder: Path
    doors: list[bool] = field(default_factory=list)

    def set_door(self, *, closed: bool) -> None:
        self.bank.set_bits(1, Table.DI, 0, [closed, closed])

    def set_running(self, running: bool) -> None:
        self.bank.set_bits(1, Table.DI, 4, [running, not running])

    async def started(self) -> None:
        """Until the agent has told its state of this run."""
        count = len(self.gateway.bodies(AgentStarted))
        self.agent.start()
        await wait_for(lambda: len(self.gateway.bodies(AgentStarted)) > count, "agent_started")


@asynccontextmanager
async def edge(folder: Path, broker: Mosquitto, *, delivery: str = "gateway") -> AsyncIterator[Edge]:
    """A plant with a closed door and a standing machine, a tiny gateway, and an agent not yet started."""
    bank = RegisterBank([1])
    bank.set_bits(1, Table.DI, 0, [True, True, False, False, False, True])
    async with RegisterBankServer(bank) as server:
        config = folder / "agent.yaml"
        config.write_text(CONFIG.format(mqtt=broker.url, modbus=server.address[1], delivery=delivery))
        agent = AgentProcess(config)
        with TinyGateway(broker.port) as gateway:
            try:
                yield Edge(bank, broker, gateway, agent, folder)
            finally:
                agent.kill()
