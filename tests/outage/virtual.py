"""The outage in the deterministic world: a day passes in minutes, and every run is equal.

Real are the agent with its engine, store and sender, the gateway with its journal and folds; the world's are clocks, the
broker, the network, the disks' latencies, and the hall, read over the agent's own plan. What limits the drain here:

    the window       256 events beyond the last ack, in both directions over the network's latency
    Receive Maximum  what agent, broker and gateway may have unanswered, as in deploy/mosquitto
    the disks        some milliseconds for each commit and each read of a chunk
    the processors   `WORK_US` for each event: what the slowest of agent, broker and gateway was measured to take

Not modelled: the bytes' own time on the wire (500 bytes an event: 8 Mbit/s carry 2 000 a second), other agents, alerting's
and the historian's share of the gateway beyond what `WORK_US` holds. At the hall's rate a shared link is no matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from edge_agent.domain.plan import CellPlan, ReadBlock, Table
from edge_agent.ports import BlockOk, BlockOutcome
from edge_agent.settings import AgentSettings, load
from gateway.domain.board import View, board_document
from gateway.ports import Message
from simulators.draw import Draw
from tests.outage import books
from tests.outage.hall import BEAT_S, RATE, Hall, config
from tests.outage.verdict import Outcome
from tests.simulation.agent_node import AgentNode, AgentOptions
from tests.simulation.clocks import NodeClock
from tests.simulation.gateway_node import GatewayNode, ReceiverWeather, SimIntake
from tests.simulation.historian import HistorianWeather
from tests.simulation.network import NOTICE_S, SimBroker
from tests.simulation.node import DiskWeather
from tests.simulation.virtual_loop import VirtualLoop, run_virtual, virtual_loop

POLL_MS: Final = 1000
WORK_US: Final = 320
"""`python -m tests.bench backlog`: 216 433 events in 67.5 s on one core for the gateway, one for all else."""

RECEIVE_MAX: Final = 1000
"""`max_inflight_messages` of deploy/mosquitto."""

STORE_MB: Final = 512
LOOK_EVERY_S: Final = 120.0
UNKNOWN_S: Final = 15.0
"""How long after the cut the board may still show what was so: the auditor's own bound."""

HOUR_S: Final = 3600
UP_S: Final = 10.0
DRAIN_S: Final = 600
SETTLE_S: Final = 60
READ_MS: Final = 5


class PacedIntake(SimIntake):
    """Hands a batch over when the processors are done with it."""

    receive_max: ClassVar[int] = RECEIVE_MAX

    async def batch(self) -> Sequence[Message]:
        taken = await super().batch()
        await asyncio.sleep(len(taken) * WORK_US / 1_000_000)
        return taken


class HallBus:
    """`edge_agent.ports.Fieldbus` to the hall's controller: always there, a few milliseconds away."""

    def __init__(self, hall: Hall) -> None:
        self.requests: Counter[int] = Counter()
        self._hall = hall

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        """What the inputs are when the answer leaves."""
        assert block.table is Table.DISCRETE_INPUT
        self.requests[block.table.function_code] += 1
        await asyncio.sleep(READ_MS / 1000)
        bits = self._hall.inputs[block.start : block.start + block.count]
        packed = int("".join("1" if bit else "0" for bit in reversed(bits)), 2)
        return BlockOk(packed.to_bytes((block.count + 7) // 8, "little"))

    async def close(self) -> None:
        """Nothing to give back."""


class _Day:
    """Everything there is, and what is told of it."""

    def __init__(self, hours: float, folder: Path, say: Callable[[str], None]) -> None:
        self.length_s = hours * HOUR_S
        self.folder = folder
        self.say = say
        self.wrong: list[str] = []

    async def live(self) -> Outcome:
        """From the first poll to the closed books."""
        loop = virtual_loop()
        self._build(loop)
        self.gateway.start()
        self.agent.start()
        await asyncio.sleep(UP_S)
        assert self._board() == books.expected_board(self.hall.turns), "the board does not know the hall"
        beating = asyncio.create_task(self._beat())
        self._cut()
        cut_ms = self.clock.mono_ms()
        await self._pass_the_day(loop)
        self.broker.unreachable.clear()
        up_ms = self.clock.mono_ms()
        await self._drain()
        await asyncio.sleep(2 * BEAT_S)
        beating.cancel()
        await self._settle()
        offset_ms = self.gateway_clock.utc_ms() - self.clock.mono_ms()
        store, journal = self.folder / "gw-01.db", self.gateway.path
        failures = [*self.gateway.failures, *self.agent.failures]
        await self.agent.stop()
        await asyncio.sleep(UP_S)
        await self.gateway.kill()
        book, stored = books.read_journal(journal), books.read_store(store)
        drain = books.measure(book, cut_ms=cut_ms, up_ms=up_ms, offset_ms=offset_ms)
        figures = {
            "events in the agent's store": len(stored),
            "turns of doors": sum(len(turns) for turns in self.hall.turns.values()),
            "store, MB": store.stat().st_size // 1_000_000,
            "messages to people": len(self.gateway.received.alerts),
        }
        findings = books.account(self.hall.turns, book, stored)
        return Outcome(
            findings, [*self.wrong, *failures], book.own_findings, drain, figures, cut_ms=up_ms - cut_ms
        )

    def _build(self, loop: VirtualLoop) -> None:
        draw = Draw(1)
        self.broker = SimBroker(loop, draw.split("broker"))
        self.clock, self.gateway_clock = NodeClock(loop, "floor", 0), NodeClock(loop, "hub", 0)
        self.hall = Hall(self.clock.mono_ms())
        plan = _plan(self.folder)
        links = {device.url: HallBus(self.hall) for device in plan.devices.values()}
        options = AgentOptions(receive_max=RECEIVE_MAX, store_mb=STORE_MB)
        self.agent = AgentNode(
            loop, plan, self.broker, links, self.clock, self.folder / "gw-01.db", draw.split("agent"), options
        )
        self.gateway = GatewayNode(
            loop,
            self.broker,
            self.gateway_clock,
            self.folder / "journal.db",
            draw.split("gateway"),
            DiskWeather(),
            ReceiverWeather(),
            HistorianWeather(),
        )
        self.gateway.intake_class = PacedIntake

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.hall.beat(self.clock.mono_ms())

    def _cut(self) -> None:
        """The link falls silent; nobody is told."""
        name = self.agent.plan.agent
        self.broker.unreachable.add(name)
        for connection in tuple(self.broker.connections):
            if connection.client == name:
                connection.fall_silent(NOTICE_S)

    async def _pass_the_day(self, loop: VirtualLoop) -> None:
        began_s = loop.time()
        hours = 0
        await asyncio.sleep(UNKNOWN_S)
        while loop.time() < began_s + self.length_s:
            known = [f"{door} {state}" for door, state in self._board().items() if state != "unknown"]
            if known:
                passed_s = loop.time() - began_s
                self.wrong.append(f"{passed_s:.0f} s after the cut the board shows {known[0]} …")
            if loop.time() - began_s >= (hours + 1) * HOUR_S:
                hours += 1
                self.say(f"{hours} h without a link: {self.hall.beats} beats")
            await asyncio.sleep(min(LOOK_EVERY_S, began_s + self.length_s - loop.time()))
        self.say("link back")

    def _board(self) -> dict[str, str]:
        parts = self.gateway.parts
        assert parts is not None, "the gateway is down"
        return books.shown_on(board_document(View(parts.plant.state, {}, parts.clock.utc_ms()), {}))

    def _stored(self) -> tuple[str, int] | None:
        return books.newest(self.folder / "gw-01.db", "event", "n")

    def _journaled(self) -> tuple[str, int] | None:
        return books.newest(self.gateway.path, "journal", "position")

    async def _drain(self) -> None:
        stored = self._stored()
        assert stored is not None
        for _ in range(DRAIN_S):
            await asyncio.sleep(1)
            held = self._journaled()
            if held is not None and held[0] == stored[0] and held[1] >= stored[1]:
                return
        raise TimeoutError(f"after {DRAIN_S} s the journal is at {self._journaled()} of {stored}")

    async def _settle(self) -> None:
        """Nothing moves any more: what board and log show otherwise than it is."""
        found: list[str] = []
        for _ in range(SETTLE_S):
            await asyncio.sleep(1)
            found = books.what_is_wrong(self.hall.turns, self._board(), self.gateway.path)
            if not found and self._stored() == self._journaled():
                return
        self.wrong += found or ["the last events are not journaled"]


def _plan(folder: Path) -> CellPlan:
    """The hall's configuration, compiled as the agent compiles it."""
    path = folder / "agent.yaml"
    path.write_text(config(broker="127.0.0.1:1883", modbus_port=5020, poll_ms=POLL_MS), encoding="utf-8")
    settings = load(path, {})
    assert isinstance(settings, AgentSettings), settings
    return settings.plan


def live_through(hours: float, folder: Path, say: Callable[[str], None]) -> Outcome:
    """The whole story. Raises TimeoutError when it cannot be brought to its end."""
    say(f"{hours:g} h of virtual time at {RATE:g} events a second")
    return run_virtual(_Day(hours, folder, say).live)
