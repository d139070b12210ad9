"""The world of one run: plant, links, agents, broker, gateway, receivers, and everything that befalls them.

    world = World(seed, folder, plans)
    findings = run_virtual(world.run)         # empty, or what the auditor found

Theory of operation. A run has two phases. In the first, each trouble of the seed's `Swarm` strikes at its own pace,
overlapping with the others, while the auditor watches. Then the world *heals* (`healing`): good weather, everybody
up, guards closed; and within a bound everything must have come together (liveness), whatever happened before.
Troubles of one node take turns (a machine that is off cannot crash), everything else overlaps freely.

Everything random comes from `Draw` streams split by name from the seed, so a run is wholly determined by it, and what
one trouble draws never shifts what another gets. `trace` hashes what every node committed and when.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields
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
from tests.simulation.crew import Script, restless
from tests.simulation.fieldbus import BusWeather, ServedLog, SimFieldbus
from tests.simulation.findings import Finding
from tests.simulation.gateway_node import GatewayNode, ReceiverWeather
from tests.simulation.healing import HEAL_S, heal
from tests.simulation.historian import HistorianWeather
from tests.simulation.network import SimBroker, Weather
from tests.simulation.node import DiskWeather
from tests.simulation.operators import Operators
from tests.simulation.swarm import Swarm
from tests.simulation.troubles import Troubles
from tests.simulation.virtual_loop import NS_PER_S, VirtualLoop, virtual_loop
from tests.simulation.ward import MS, Ward

LOOK_EVERY_S: Final = 1.0


class World:
    """One run. `customise` changes what is built, `script` replaces the people at the machines."""

    def __init__(
        self, seed: int, folder: Path, plans: Sequence[CellPlan], swarm: Swarm, *, heal_s: int = HEAL_S
    ) -> None:
        self.seed = seed
        self.heal_s = heal_s
        self.folder = folder
        self.draw = Draw(seed)
        self.swarm = swarm
        self.plans = plans
        self.wards: list[Ward] = []
        self.gateway_disk = DiskWeather()
        self.receiver_weather = ReceiverWeather()
        self.historian_weather = HistorianWeather()
        self.customise: Callable[[World], None] = lambda _world: None
        self.wall_step_ns = 0
        self.script: Callable[[World], Script] | None = None
        self.bus_class: type[SimFieldbus] = SimFieldbus
        self.troubles = Troubles(self)
        self.operators = Operators(self)
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """What every node committed and when, as one hash."""
        return self._trace.hexdigest()

    @property
    def ward(self) -> Ward:
        """The first agent: the only one in stories of one."""
        return self.wards[0]

    async def run(self) -> list[Finding]:
        """Live through it all; what the auditor found."""
        self._build(virtual_loop())
        self.customise(self)
        self.make_weather(is_good=False)
        self.gateway.start()
        for ward in self.wards:
            ward.node.start()
        troubles = [asyncio.create_task(trouble) for trouble in self._troubles()]
        watching = asyncio.create_task(self._watch())
        await asyncio.sleep(self.swarm.length_s)
        await asyncio.gather(*troubles)
        await heal(self)
        watching.cancel()
        await asyncio.wait([watching])
        self.auditor.conclude()
        for ward in self.wards:
            await ward.node.stop()
        await self.gateway.kill()
        self.auditor.close()
        return self.auditor.findings

    def _build(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.cell = Cell(self.seed)
        self.broker = SimBroker(loop, self.draw.split("broker"))
        self.broker.queue_max = self.swarm.broker_queue
        self.gateway_clock = NodeClock(loop, "hub", 0)
        self.wards = [
            self._make_ward(plan.agent, plan, self.folder / plan.agent, self.draw.split(plan.agent))
            for plan in self.plans
        ]
        self.gateway = GatewayNode(
            loop,
            self.broker,
            self.gateway_clock,
            self.folder / "journal.db",
            self.draw.split("gateway"),
            self.gateway_disk,
            self.receiver_weather,
            self.historian_weather,
        )
        self.auditor = Auditor(self.wards, self.gateway, self.cell, self.broker, self.operators)
        # while the disk stalls an agent judges nothing: states follow as late as that
        if self.swarm.stall_share:
            self.auditor.tolerance_ns = 2 * self.gateway_disk.stall_ms_max * 1_000_000
        self.auditor.is_receiver_good = not (
            self.swarm.receiver_error_share or self.swarm.receiver_unknown_share
        )
        self.gateway.on_commit = self._gateway_committed
        self.gateway.on_ack = self.auditor.on_ack

    def _make_ward(self, name: str, plan: CellPlan, folder: Path, draw: Draw) -> Ward:
        swarm, bus, served, disk = self.swarm, BusWeather(), ServedLog(), DiskWeather()
        clock = NodeClock(self.loop, name, swarm.agent_drift_ppm)
        links = {
            device.url: self.bus_class(self.loop, self.cell, draw.split(device.url), bus, served)
            for device in plan.devices.values()
        }
        options = AgentOptions(swarm.receive_max, swarm.outbox_kb, swarm.window_kb, disk)
        node = AgentNode(self.loop, plan, self.broker, links, clock, folder / "store.db", draw, options)
        ward = Ward(name, node, clock, disk, bus, served)

        def committed(events: Sequence[Event]) -> None:
            for event in events:
                self._trace.update(f"{self.loop.now_ns} {event.hash}\n".encode())
            ward.note_commit(events)

        def pruned(from_place: int, to_place: int) -> None:
            self.troubles.struck["event pruned"] += to_place - from_place
            ward.note_pruned(from_place, to_place)

        node.on_commit, node.on_loss, node.on_prune = committed, ward.note_loss, pruned
        return ward

    def add_clone(self, of: Ward, folder: Path, draw: Draw) -> Ward:
        """Another machine with the image, and so with the identity, of an agent; not started yet."""
        clone = self._make_ward(folder.name, of.plan, folder, draw)
        clone.is_clone = True
        clone.bases = [of.held()]
        clone.losses, clone.unwritten = [*of.losses], [*of.unwritten]
        self._set_weather(clone, is_good=False)
        self.auditor.wards.append(clone)
        return clone

    def _gateway_committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            line = f"{self.loop.now_ns} {entry.position} {type(entry.body).__name__} {entry.recorded_at_ms}\n"
            self._trace.update(line.encode())
        self.auditor.on_gateway_commit(entries)

    def make_weather(self, *, is_good: bool) -> None:
        """As the seed drew it, or good."""
        swarm = self.swarm
        net, receiver, historian = Weather(), ReceiverWeather(), HistorianWeather()
        if not is_good:
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
            historian.is_strict = swarm.historian_strict
            historian.unknown_share = swarm.historian_unknown_share
            historian.bad_share = swarm.historian_bad_share
        _become(self.broker.weather, net)
        _become(self.receiver_weather, receiver)
        _become(self.historian_weather, historian)
        self.gateway_disk.stall_share = 0.0 if is_good else swarm.stall_share
        for ward in self.wards:
            self._set_weather(ward, is_good=is_good)

    def _set_weather(self, ward: Ward, *, is_good: bool) -> None:
        swarm, bus = self.swarm, BusWeather()
        if not is_good:
            bus = BusWeather(
                swarm.bus_latency_ms_max,
                swarm.bus_fault_share,
                swarm.bus_late_share,
                swarm.bus_exception_share,
                swarm.bus_short_share,
            )
        _become(ward.bus, bus)
        ward.disk.stall_share = 0.0 if is_good else swarm.stall_share

    def _troubles(self) -> list[Coroutine[object, object, None]]:
        swarm, troubles, scripts = self.swarm, self.troubles, self._scripts()
        return [
            *(self._perform(script) for script in scripts),
            self._strike("link down", swarm.link_down_every_s, troubles.drop_link),
            self._strike("table down", swarm.table_down_every_s, troubles.drop_table),
            self._strike("cut", swarm.cut_every_s, troubles.cut),
            self._strike("silence", swarm.silence_every_s, troubles.silence),
            self._strike("partition", swarm.partition_every_s, troubles.part),
            self._strike("broker down", swarm.broker_down_every_s, troubles.stop_broker),
            self._strike("agent crash", swarm.agent_crash_every_s, troubles.crash_agent),
            self._strike("clone", swarm.clone_every_s, troubles.clone),
            self._strike("gateway crash", swarm.gateway_crash_every_s, troubles.crash_gateway),
            self._strike("disk full", swarm.disk_full_every_s, troubles.fill_disk),
            self._strike("journal full", swarm.journal_full_every_s, troubles.fill_journal),
            self._strike("agent's wall clock", swarm.wall_step_every_s, troubles.step_agent),
            self._strike("gateway's wall clock", swarm.gateway_step_every_s, troubles.step_gateway),
            self._strike("historian", swarm.historian_down_every_s, troubles.stop_historian),
            self._strike("operator", swarm.operator_every_s, self.operators.operate),
        ]

    def _scripts(self) -> list[Script]:
        if self.script is not None:
            return [self.script(self)]
        draw, cell = self.draw, self.cell
        watched = [str(machine) for plan in self.plans for machine in plan.machines]
        if self.swarm.people:
            return [operator(cell.machines[name], draw.split(name)) for name in watched]
        return [restless(cell, cell.machines[name], draw.split(name)) for name in watched]

    async def _perform(self, script: Script) -> None:
        """Let a person act until the healing begins."""
        while True:
            self.advance_cell()
            pause_ms = next(script, None)
            if pause_ms is None or not await self._is_rested(pause_ms):
                return

    def advance_cell(self) -> None:
        """Let the plant's time catch up."""
        self.cell.advance(max(self.cell.now_ms, self.loop.now_ns // 1_000_000))

    async def _strike(
        self, name: str, every_s: int, trouble: Callable[[Draw], Coroutine[object, object, None]]
    ) -> None:
        """Let a trouble strike, again and again, until the healing begins."""
        draw = self.draw.split(name)
        while every_s and await self._is_rested(draw.between(every_s * 300, every_s * 1700)):
            await trouble(draw)

    async def _is_rested(self, pause_ms: int) -> bool:
        """Pause; False at once when the healing begins before that is over: there is nothing to wait for."""
        if self.loop.now_ns + pause_ms * MS >= self.swarm.length_s * NS_PER_S:
            return False
        await asyncio.sleep(pause_ms / 1000)
        return True

    async def _watch(self) -> None:
        """Let the auditor look once a second."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.advance_cell()
            self.auditor.look()


def _become(kept: object, now: object) -> None:
    """Change weather in place: whoever is in it holds on to the object."""
    for item in fields(now):  # type: ignore[arg-type]
        setattr(kept, item.name, getattr(now, item.name))
