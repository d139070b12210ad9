"""The troubles of a run: each strikes once when it is called, and takes its time.

They share nothing but the world; what a trouble needs to decide it draws from its own stream.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from edge_agent.domain.plan import Table
from simulators.draw import Draw
from tests.simulation.node import CrashPoint, Life
from tests.simulation.virtual_loop import NS_PER_S
from tests.simulation.ward import Ward

if TYPE_CHECKING:
    from tests.simulation.world import World

ARMED_S: Final = 8.0
"""An armed crash point that was not reached by then becomes a crash wherever the node is."""

AGENT_POINTS: Final = (
    CrashPoint.NOW,
    CrashPoint.BEFORE_COMMIT,
    CrashPoint.AFTER_COMMIT,
    CrashPoint.AFTER_PUBLISH,
    CrashPoint.AFTER_PUBACK,
)
GATEWAY_POINTS: Final = (
    CrashPoint.NOW,
    CrashPoint.BEFORE_COMMIT,
    CrashPoint.AFTER_COMMIT,
    CrashPoint.AFTER_PUBACK,
    CrashPoint.AFTER_ACK,
    CrashPoint.AFTER_SEND,
    CrashPoint.AFTER_WRITE,
)


class Troubles:
    """Everything that can befall one world. `struck` counts what did, by kind."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.struck: Counter[str] = Counter()

    async def drop_link(self, draw: Draw) -> None:
        """One agent's link to its controllers is down for a while."""
        ward = self._choose(draw)
        self.struck["link down"] += 1
        ward.bus.link_down = True
        await asyncio.sleep(draw.between(100, 20_000) / 1000)
        ward.bus.link_down = False

    async def drop_table(self, draw: Draw) -> None:
        """Controllers are too busy to answer for one of their tables: one agent sees half of each device."""
        ward = self._choose(draw)
        self.struck["table down"] += 1
        ward.bus.table_down = draw.choice(
            (Table.DISCRETE_INPUT, Table.HOLDING_REGISTER, Table.INPUT_REGISTER)
        )
        await asyncio.sleep(draw.between(100, 30_000) / 1000)
        ward.bus.table_down = None

    async def cut(self, draw: Draw) -> None:
        """Connections are reset."""
        for connection in tuple(self._world.broker.connections):
            if draw.chance(0.6):
                self.struck["cut"] += 1
                connection.cut("reset by peer")

    async def silence(self, draw: Draw) -> None:
        """A connection falls silent: half-open."""
        if self._world.broker.connections:
            self.struck["half-open"] += 1
            draw.choice(self._world.broker.connections).fall_silent(draw.between(1, 12_000) / 1000)

    async def part(self, draw: Draw) -> None:
        """One side cannot reach the broker for a while."""
        broker = self._world.broker
        name = draw.choice((self._choose(draw).plan.agent, "gateway"))
        self.struck["partition"] += 1
        broker.unreachable.add(name)
        for connection in tuple(broker.connections):
            if connection.client == name:
                connection.fall_silent(draw.between(1, 12_000) / 1000)
        await asyncio.sleep(draw.between(1, 45_000) / 1000)
        broker.unreachable.discard(name)

    async def stop_broker(self, draw: Draw) -> None:
        """The broker is gone for a while, and may come back empty."""
        is_wiped = draw.chance(self._world.swarm.broker_wipe_share)
        self.struck["broker wiped" if is_wiped else "broker down"] += 1
        self._world.broker.stop(is_wiped=is_wiped)
        await asyncio.sleep(draw.between(100, 30_000) / 1000)
        self._world.broker.start()

    async def crash_agent(self, draw: Draw) -> None:
        """An agent's power fails, at a commit boundary or anywhere."""
        ward = self._choose(draw)
        async with ward.turn:
            if ward.node.is_running:
                await self._crash_agent(draw, ward)

    async def _crash_agent(self, draw: Draw, ward: Ward) -> None:
        point = draw.choice(AGENT_POINTS)
        self.struck[f"agent crash {point}"] += 1
        ward.node.life.armed = point
        await self._await_crash(draw, ward.node.life)
        await ward.node.settle()
        self._befall_store(draw, ward)
        if draw.chance(self._world.swarm.reboot_share):
            is_synced = not draw.chance(self._world.swarm.unsynced_share)
            self.struck["reboot" if is_synced else "reboot without time"] += 1
            ward.clock.reboot(is_synced=is_synced)
            self._resynchronise_later(draw, ward)
        ward.node.start()

    async def _await_crash(self, draw: Draw, life: Life) -> None:
        for _ in range(int(ARMED_S * 10)):
            if life.armed is CrashPoint.NOW or not life.is_alive:
                break
            await asyncio.sleep(0.1)
        life.end(CrashPoint.NOW)
        await asyncio.sleep(draw.between(50, draw.choice((500, 3_000, 12_000))) / 1000)

    def _befall_store(self, draw: Draw, ward: Ward) -> None:
        """What may have happened to the agent's disk while it was off."""
        swarm, node = self._world.swarm, ward.node
        image = self._world.folder / f"image of {ward.name}"
        before = self.struck.copy()
        if draw.chance(swarm.store_loss_share):
            self.struck["store lost"] += 1
            node.lose_store()
            ward.note_store((), by_image=False)
        elif draw.chance(swarm.store_scribble_share):
            self.struck["store unreadable"] += 1
            node.spoil_file()
            ward.note_store((), by_image=False)
        elif image.exists() and draw.chance(swarm.store_image_share):
            self.struck["store restored"] += 1
            node.lose_store(image)
            ward.note_store(ward.image, by_image=True)
        elif swarm.store_image_share and draw.chance(0.5):
            node.copy_store(image)
            ward.note_image()
        is_gone = any(self.struck[kind] > before[kind] for kind in ("store lost", "store unreadable"))
        if not is_gone and draw.chance(swarm.store_damage_share):
            spoilt = node.spoil_rows(draw)
            ward.unreadable |= spoilt
            self.struck["event damaged"] += len(spoilt)

    def _resynchronise_later(self, draw: Draw, ward: Ward) -> None:
        boot = ward.clock.boot

        def synchronise() -> None:
            if ward.clock.boot == boot:
                ward.clock.synchronise()

        self._world.loop.call_later(draw.between(1, 60), synchronise)

    async def clone(self, draw: Draw) -> None:
        """A copy of an agent, image and identity, runs beside it for a while on another machine."""
        ward = self._choose(draw)
        async with ward.turn:
            if not ward.node.is_running:
                return
            self.struck["clone"] += 1
            folder = self._world.folder / f"clone {self.struck['clone']}"
            await ward.node.kill()
            ward.node.copy_store(folder)
            copy = self._world.add_clone(ward, folder, draw.split(folder.name))
            ward.node.start()
        await asyncio.sleep(draw.between(100, 8_000) / 1000)
        copy.node.start()
        await asyncio.sleep(draw.between(500, 20_000) / 1000)
        await copy.node.kill()
        copy.note_store((), by_image=False)  # thrown away

    async def crash_gateway(self, draw: Draw) -> None:
        """The gateway's power fails; its journal may be lost or restored from a backup."""
        world = self._world
        gateway, swarm = world.gateway, world.swarm
        if not gateway.is_running:
            return
        backup = world.folder / "backup.db"
        if gateway.parts is not None and swarm.journal_restore_share and draw.chance(0.5):
            gateway.back_up(backup)
        point = draw.choice(GATEWAY_POINTS)
        self.struck[f"gateway crash {point}"] += 1
        gateway.life.armed = point
        await self._await_crash(draw, gateway.life)
        await gateway.settle()
        if draw.chance(swarm.journal_loss_share):
            self.struck["journal lost"] += 1
            gateway.restore(None)
            world.auditor.note_journal_replaced()
        elif backup.exists() and draw.chance(swarm.journal_restore_share):
            self.struck["journal restored"] += 1
            gateway.restore(backup)
            world.auditor.note_journal_replaced()
        gateway.start()

    async def fill_disk(self, draw: Draw) -> None:
        """No room on an agent's disk for a while: SQLite may not grow its file."""
        ward = self._choose(draw)
        self.struck["disk full"] += 1
        self.set_full(ward, is_full=True)
        begun_ns = self._world.loop.now_ns
        await asyncio.sleep(draw.between(500, 20_000) / 1000)
        self.set_full(ward, is_full=False)
        ward.unwritten.append((begun_ns, self._world.loop.now_ns + NS_PER_S))

    def set_full(self, ward: Ward, *, is_full: bool) -> None:
        """Take an agent's room, or give it back."""
        ward.disk.is_full = is_full
        ward.node.limit_store()

    async def fill_journal(self, draw: Draw) -> None:
        """No room on the gateway's disk for a while."""
        self.struck["journal full"] += 1
        begun_ns = self._world.loop.now_ns
        self._world.gateway_disk.is_full = True
        await asyncio.sleep(draw.between(500, 20_000) / 1000)
        self._world.gateway_disk.is_full = False
        self._world.auditor.journal_full.append((begun_ns, self._world.loop.now_ns + 2 * NS_PER_S))

    async def step_agent(self, draw: Draw) -> None:
        """An agent's wall clock jumps: one second to ten years, forwards or back."""
        self.struck["agent's wall step"] += 1
        step_s = draw.choice((1, 61, 3600, 86_400, 3650 * 86_400)) * draw.choice((-1, 1))
        self._choose(draw).clock.step_wall(step_s * NS_PER_S)

    async def step_gateway(self, draw: Draw) -> None:
        """A gateway's clock runs ahead for a while, or behind, and comes back."""
        self.struck["gateway's wall step"] += 1
        step_ns = draw.choice((-3600, -5, 2, 30, 120)) * NS_PER_S
        self._world.gateway_clock.step_wall(step_ns)
        await asyncio.sleep(draw.between(1, 20))
        self._world.gateway_clock.step_wall(-step_ns)

    async def stop_historian(self, draw: Draw) -> None:
        """The time-series database is away for a while, slow, or refuses the gateway."""
        weather = self._world.historian_weather
        kind = draw.choice(("down", "down", "closed", "slow"))
        self.struck[f"historian {kind}"] += 1
        weather.is_down, weather.is_closed = kind == "down", kind == "closed"
        weather.latency_ms_max = 8_000 if kind == "slow" else 50
        await asyncio.sleep(draw.between(100, 30_000) / 1000)
        weather.is_down, weather.is_closed, weather.latency_ms_max = False, False, 50

    def _choose(self, draw: Draw) -> Ward:
        return draw.choice(self._world.wards)
