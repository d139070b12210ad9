"""The world of one run: plant, links, agent, broker, gateway, receivers, and everything that befalls them.

    world = World(seed, folder, plan)
    findings = run_virtual(world.run)         # empty, or what the auditor found

Theory of operation. A run has two phases. In the first, each trouble of the seed's `Swarm` strikes at its own pace,
overlapping with the others, while the auditor watches. Then the world *heals*: good weather, everybody up, guards
closed; and within `HEAL_S` everything must have come together (liveness), whatever happened before. Troubles of one
node take turns (a machine that is off cannot crash), everything else overlaps freely.

Everything random comes from `Draw` streams split by name from the seed, so a run is wholly determined by it, and what
one trouble draws never shifts what another gets. `trace` hashes what every node committed and when.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_agent.domain.plan import CellPlan
from edge_agent.wire.event import Event
from gateway.domain.journal import Entry
from simulators.cell import Cell
from simulators.draw import Draw
from simulators.people import operator
from tests.simulation.agent_node import AgentNode, AgentOptions
from tests.simulation.auditor import Auditor
from tests.simulation.clocks import NodeClock
from tests.simulation.crew import Script, move_all, put_right, restless
from tests.simulation.fieldbus import BusWeather, ServedLog, SimFieldbus
from tests.simulation.findings import Finding
from tests.simulation.gateway_node import GatewayNode, ReceiverWeather
from tests.simulation.network import SimBroker, Weather
from tests.simulation.node import DiskWeather
from tests.simulation.swarm import Swarm, draw_swarm
from tests.simulation.troubles import Troubles
from tests.simulation.virtual_loop import VirtualLoop, virtual_loop

HEAL_S: Final = 150
"""Longer than every pause that is left after the weather has turned: R29 clears after 30 s, receivers are tried again
within 60 s, an agent sends again within 30 s, a restarted gateway's clock catches up."""

CYCLE_S: Final = 6.0
"""Doors stay that long in each position of their clean cycle: several polls of the slowest device."""

DOUBT_S: Final = 600
"""After two runs of one identity seemed to overlap the gateway reconciles nothing for so long (protocol §3.5)."""


class World:
    """One run. `swarm` may be given instead of drawn, to look at one trouble alone; `customise` changes what is built."""

    def __init__(
        self, seed: int, folder: Path, plan: CellPlan, swarm: Swarm | None = None, *, heal_s: int = HEAL_S
    ) -> None:
        self.seed = seed
        self.heal_s = heal_s
        self.folder = folder
        self.draw = Draw(seed)
        self.swarm = swarm or draw_swarm(self.draw.split("swarm"))
        devices = {name: replace(device, poll_ms=self.swarm.poll_ms) for name, device in plan.devices.items()}
        blocks = tuple(replace(block, poll_ms=self.swarm.poll_ms) for block in plan.blocks)
        signals = tuple(replace(signal, poll_ms=self.swarm.poll_ms) for signal in plan.signals)
        self.plan = replace(plan, devices=devices, blocks=blocks, signals=signals)
        self.bus_weather = BusWeather()
        self.agent_disk = DiskWeather()
        self.gateway_disk = DiskWeather()
        self.receiver_weather = ReceiverWeather()
        self.customise: Callable[[World], None] = lambda _world: None
        self.wall_step_ns = 0
        self.script: Callable[[World], Script] | None = None
        self.bus_class: type[SimFieldbus] = SimFieldbus
        self.troubles = Troubles(self)
        self._trace = hashlib.sha256()
        self._is_healing = False

    @property
    def trace(self) -> str:
        """What every node committed and when, as one hash."""
        return self._trace.hexdigest()

    async def run(self) -> list[Finding]:
        """Live through it all; what the auditor found."""
        self._build(virtual_loop())
        self.customise(self)
        self._make_weather(is_good=False)
        self.gateway.start()
        self.agent.start()
        troubles = [asyncio.create_task(trouble) for trouble in self._troubles()]
        watching = asyncio.create_task(self._watch())
        await asyncio.sleep(self.swarm.length_s)
        self._is_healing = True
        await asyncio.gather(*troubles)
        await self._heal()
        watching.cancel()
        await asyncio.wait([watching])
        self.auditor.conclude()
        await self.agent.stop()
        await self.gateway.kill()
        return self.auditor.findings

    def _build(self, loop: VirtualLoop) -> None:
        draw, swarm = self.draw, self.swarm
        self.loop = loop
        self.cell = Cell(self.seed)
        self.served = ServedLog()
        self.broker = SimBroker(loop, draw.split("broker"))
        self.agent_clock = NodeClock(loop, "edge", swarm.agent_drift_ppm)
        self.gateway_clock = NodeClock(loop, "hub", 0)
        links = {
            device.url: self.bus_class(loop, self.cell, draw.split(device.url), self.bus_weather, self.served)
            for device in self.plan.devices.values()
        }
        self.agent = AgentNode(
            loop,
            self.plan,
            self.broker,
            links,
            self.agent_clock,
            self.folder / "agent" / "store.db",
            draw.split("agent"),
            AgentOptions(receive_max=swarm.receive_max, disk=self.agent_disk),
        )
        self.gateway = GatewayNode(
            loop,
            self.broker,
            self.gateway_clock,
            self.folder / "journal.db",
            draw.split("gateway"),
            self.gateway_disk,
            self.receiver_weather,
        )
        # while the disk stalls the agent judges nothing: states follow as late as that
        stall_ms = self.agent_disk.stall_ms_max if swarm.stall_share else 0
        self.auditor = Auditor(self.plan, self.agent, self.gateway, self.cell, self.served, self.broker)
        self.auditor.tolerance_ns = 2 * stall_ms * 1_000_000
        self.agent.on_commit = self._agent_committed
        self.gateway.on_commit = self._gateway_committed
        self.gateway.on_ack = self.auditor.on_ack

    def _agent_committed(self, events: Sequence[Event]) -> None:
        for event in events:
            self._trace.update(f"{self.loop.now_ns} {event.hash}\n".encode())
        self.auditor.on_agent_commit(events)

    def _gateway_committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            line = f"{self.loop.now_ns} {entry.position} {type(entry.body).__name__} {entry.recorded_at_ms}\n"
            self._trace.update(line.encode())
        self.auditor.on_gateway_commit(entries)

    def _make_weather(self, *, is_good: bool) -> None:
        swarm = self.swarm
        bus, net, receiver = BusWeather(), Weather(), ReceiverWeather()
        stall_share = 0.0
        if not is_good:
            bus = BusWeather(
                swarm.bus_latency_ms_max,
                swarm.bus_fault_share,
                swarm.bus_late_share,
                swarm.bus_exception_share,
                swarm.bus_short_share,
            )
            net = Weather(
                swarm.net_latency_ms_max,
                swarm.duplicate_share,
                swarm.forget_share,
                swarm.straggle_share,
                swarm.lost_will_share,
            )
            receiver = ReceiverWeather(
                200,
                swarm.receiver_error_share,
                swarm.receiver_unknown_share,
                swarm.receiver_reject_share,
            )
            stall_share = swarm.stall_share
        for kept, now in (
            (self.bus_weather, bus),
            (self.broker.weather, net),
            (self.receiver_weather, receiver),
        ):
            for name in now.__slots__:
                setattr(kept, name, getattr(now, name))
        self.agent_disk.stall_share = self.gateway_disk.stall_share = stall_share

    def _troubles(self) -> list[Coroutine[object, object, None]]:
        swarm, troubles, scripts = self.swarm, self.troubles, self._scripts()
        return [
            *(self._perform(script) for script in scripts),
            self._strike("link down", swarm.link_down_every_s, troubles.drop_link),
            self._strike("cut", swarm.cut_every_s, troubles.cut),
            self._strike("silence", swarm.silence_every_s, troubles.silence),
            self._strike("partition", swarm.partition_every_s, troubles.part),
            self._strike("broker down", swarm.broker_down_every_s, troubles.stop_broker),
            self._strike("agent crash", swarm.agent_crash_every_s, troubles.crash_agent),
            self._strike("gateway crash", swarm.gateway_crash_every_s, troubles.crash_gateway),
            self._strike("disk full", swarm.disk_full_every_s, troubles.fill_disk),
            self._strike("agent's wall clock", swarm.wall_step_every_s, troubles.step_agent),
            self._strike("gateway's wall clock", swarm.gateway_step_every_s, troubles.step_gateway),
            self._strike("operator", swarm.operator_every_s, troubles.operate),
        ]

    def _scripts(self) -> list[Script]:
        draw, cell = self.draw, self.cell
        if self.script is not None:
            return [self.script(self)]
        if self.swarm.people:
            return [operator(machine, draw.split(name)) for name, machine in cell.machines.items()]
        return [restless(cell, machine, draw.split(name)) for name, machine in cell.machines.items()]

    async def _perform(self, script: Script) -> None:
        """Let a person act until the healing begins."""
        while not self._is_healing:
            self.cell.advance(max(self.cell.now_ms, self.loop.now_ns // 1_000_000))
            pause_ms = next(script, None)
            if pause_ms is None:
                return
            await asyncio.sleep(pause_ms / 1000)

    async def _strike(
        self, name: str, every_s: int, trouble: Callable[[Draw], Coroutine[object, object, None]]
    ) -> None:
        """Let a trouble strike, again and again, until the healing begins."""
        draw = self.draw.split(name)
        while every_s:
            await asyncio.sleep(draw.between(every_s * 300, every_s * 1700) / 1000)
            if self._is_healing:
                return
            await trouble(draw)

    async def _watch(self) -> None:
        """Let the auditor look once a second."""
        while True:
            await asyncio.sleep(1.0)
            self.cell.advance(max(self.cell.now_ms, self.loop.now_ns // 1_000_000))
            self.auditor.look()

    # healing

    async def _heal(self) -> None:
        self._make_weather(is_good=True)
        self.bus_weather.link_down = False
        self.broker.unreachable.clear()
        self.broker.start()
        self.troubles.limit_store(None)
        self.agent_clock.synchronise()
        self.gateway_clock.synchronise()
        for node in (self.gateway, self.agent):
            if not node.is_running:
                await node.settle()
                node.start()
        put_right(self.cell)
        for is_closed in (True, False, True):  # a discrepancy is over after one clean cycle of its guard
            await asyncio.sleep(CYCLE_S)
            self.cell.advance(self.loop.now_ns // 1_000_000)
            move_all(self.cell, is_closed=is_closed)
        for connection in tuple(self.broker.connections):
            connection.cut("reset by peer")  # a last state report, behind everything that was on its way
        await asyncio.sleep(self.heal_s)
        if self.auditor.is_in_doubt:
            await asyncio.sleep(DOUBT_S)
