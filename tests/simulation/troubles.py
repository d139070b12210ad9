"""The troubles of a run: each strikes once when it is called, and takes its time.

They share nothing but the world; what a trouble needs to decide it draws from its own stream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.domain.access import Principal, Role, Via
from gateway.domain.alarm import Ack
from gateway.ports import JournalUnavailable
from simulators.draw import Draw
from tests.simulation.agent_node import AgentNode
from tests.simulation.gateway_node import GatewayNode
from tests.simulation.node import CrashPoint
from tests.simulation.virtual_loop import NS_PER_S

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
)
CLERK: Final = Principal("zhao-min", Role.SHIFT_MANAGER, Via.SESSION)


class Troubles:
    """Everything that can befall one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def drop_link(self, draw: Draw) -> None:
        """The link to the controllers is down for a while."""
        self._world.bus_weather.link_down = True
        await asyncio.sleep(draw.between(100, 20_000) / 1000)
        self._world.bus_weather.link_down = False

    async def cut(self, draw: Draw) -> None:
        """Connections are reset."""
        for connection in tuple(self._world.broker.connections):
            if draw.chance(0.6):
                connection.cut("reset by peer")

    async def silence(self, draw: Draw) -> None:
        """A connection falls silent: half-open."""
        if self._world.broker.connections:
            draw.choice(self._world.broker.connections).fall_silent(draw.between(1, 12_000) / 1000)

    async def part(self, draw: Draw) -> None:
        """One side cannot reach the broker for a while."""
        name = draw.choice(("agent", "gateway"))
        self._world.broker.unreachable.add(name)
        for connection in tuple(self._world.broker.connections):
            if connection.client == name:
                connection.fall_silent(draw.between(1, 12_000) / 1000)
        await asyncio.sleep(draw.between(1, 45_000) / 1000)
        self._world.broker.unreachable.discard(name)

    async def stop_broker(self, draw: Draw) -> None:
        """The broker is gone for a while, and may come back empty."""
        self._world.broker.stop(is_wiped=draw.chance(self._world.swarm.broker_wipe_share))
        await asyncio.sleep(draw.between(100, 30_000) / 1000)
        self._world.broker.start()

    async def crash_agent(self, draw: Draw) -> None:
        """The agent's power fails, at a commit boundary or anywhere."""
        if not self._world.agent.is_running:
            return
        self._world.agent.life.armed = draw.choice(AGENT_POINTS)
        await self._await_crash(draw, self._world.agent)
        await self._world.agent.settle()
        await self._befall_store(draw)
        if draw.chance(self._world.swarm.reboot_share):
            self._world.agent_clock.reboot(is_synced=draw.chance(0.5))
            self._resynchronise_later(draw)
        self._world.agent.start()

    async def _await_crash(self, draw: Draw, node: AgentNode | GatewayNode) -> None:
        life = node.life
        for _ in range(int(ARMED_S * 10)):
            if life.armed is CrashPoint.NOW or not life.is_alive:
                break
            await asyncio.sleep(0.1)
        life.end(CrashPoint.NOW)
        await asyncio.sleep(draw.between(50, 12_000) / 1000)

    async def _befall_store(self, draw: Draw) -> None:
        """What may have happened to the agent's disk while it was off."""
        image = self._world.folder / "image"
        if draw.chance(self._world.swarm.store_loss_share):
            self._world.agent.lose_store()
            self._world.auditor.note_store_lost()
        elif image.exists() and draw.chance(self._world.swarm.store_image_share):
            self._world.agent.lose_store(image)
            self._world.auditor.note_store_restored()
        elif self._world.swarm.store_image_share and draw.chance(0.5):
            self._world.agent.copy_store(image)

    def _resynchronise_later(self, draw: Draw) -> None:
        boot = self._world.agent_clock.boot

        def synchronise() -> None:
            if self._world.agent_clock.boot == boot:
                self._world.agent_clock.synchronise()

        self._world.loop.call_later(draw.between(1, 60), synchronise)

    async def crash_gateway(self, draw: Draw) -> None:
        """The gateway's power fails; its journal may be lost or restored from a backup."""
        if not self._world.gateway.is_running:
            return
        backup = self._world.folder / "backup.db"
        if (
            self._world.gateway.parts is not None
            and self._world.swarm.journal_restore_share
            and draw.chance(0.5)
        ):
            self._world.gateway.back_up(backup)
        self._world.gateway.life.armed = draw.choice(GATEWAY_POINTS)
        await self._await_crash(draw, self._world.gateway)
        await self._world.gateway.settle()
        if draw.chance(self._world.swarm.journal_loss_share):
            self._world.gateway.restore(None)
            self._world.auditor.note_journal_replaced()
        elif backup.exists() and draw.chance(self._world.swarm.journal_restore_share):
            self._world.gateway.restore(backup)
            self._world.auditor.note_journal_replaced()
        self._world.gateway.start()

    async def fill_disk(self, draw: Draw) -> None:
        """No room on the agent's disk for a while: SQLite may not grow its file."""
        begun_ns = self._world.loop.now_ns
        self.limit_store(0)
        await asyncio.sleep(draw.between(500, 20_000) / 1000)
        self.limit_store(None)
        self._world.auditor.disk_full.append((begun_ns, self._world.loop.now_ns + NS_PER_S))

    def limit_store(self, more_pages: int | None) -> None:
        store = self._world.agent.store
        if store is None or not self._world.agent.is_running:
            return
        if more_pages is None:
            store._db.execute("PRAGMA max_page_count=1073741823")
        else:
            (pages,) = store._db.execute("PRAGMA page_count").fetchone()
            store._db.execute(f"PRAGMA max_page_count={pages + more_pages}")

    async def step_agent(self, draw: Draw) -> None:
        """The agent's wall clock jumps."""
        self._world.agent_clock.step_wall(_draw_step_ns(draw))

    async def step_gateway(self, draw: Draw) -> None:
        """A gateway's clock runs ahead for a while, or behind, and comes back."""
        step_ns = draw.choice((-3600, -5, 2, 30, 120)) * NS_PER_S
        self._world.gateway_clock.step_wall(step_ns)
        await asyncio.sleep(draw.between(1, 20))
        self._world.gateway_clock.step_wall(-step_ns)

    async def operate(self, draw: Draw) -> None:
        """Somebody acknowledges what calls."""
        parts = self._world.gateway.parts
        if parts is None or not self._world.gateway.is_running:
            return
        unseen = [
            alarm.id
            for alarm in parts.book._state.alarms.adopted().values()
            if alarm.state.ack is Ack.UNACKED
        ]
        if unseen:
            try:
                await parts.operate.acknowledge(draw.choice(sorted(unseen)), CLERK)
            except (JournalUnavailable, asyncio.CancelledError):
                return  # the gateway died under the act: nothing was promised


def _draw_step_ns(draw: Draw) -> int:
    """One second to ten years, forwards or back."""
    step_s = draw.choice((1, 61, 3600, 86_400, 3650 * 86_400)) * draw.choice((-1, 1))
    return step_s * NS_PER_S
