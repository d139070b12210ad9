"""After the troubles: good weather, everybody up, everything closed; and all must come together within a bound.

A run ends as soon as the auditor has seen everything whole for `CALM_S`, and at the latest after `HEAL_S`: what is not
whole by then never will be.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.simulation.agent_node import AgentNode
from tests.simulation.crew import move_all, put_right
from tests.simulation.gateway_node import GatewayNode

if TYPE_CHECKING:
    from tests.simulation.world import World

HEAL_S: Final = 150
"""Longer than every pause that is left after the weather has turned: R29 clears after 30 s, receivers are tried again
within 60 s, as is the historian, an agent sends again within 30 s, a restarted gateway's clock catches up."""

LOOK_S: Final = 2.0
CALM_S: Final = 6.0
"""Whole for that long: longer than any latency, and than a hole that is about to be alarmed."""

DOUBT_S: Final = 605
"""After two runs of one identity seemed to overlap the gateway reconciles nothing for ten minutes (protocol §3.5)."""


async def heal(world: World) -> None:
    """Turn the weather, put everything right, and wait until all is whole."""
    world.make_weather(is_good=True)
    world.broker.unreachable.clear()
    world.broker.start()
    world.broker.queue_max = 1000
    world.gateway_disk.is_full = False
    for ward in world.wards:
        world.troubles.set_full(ward, is_full=False)
        ward.clock.synchronise()
    world.gateway_clock.synchronise()
    nodes: list[GatewayNode | AgentNode] = [world.gateway, *(ward.node for ward in world.wards)]
    for node in nodes:
        if not node.is_running:
            await node.settle()
            node.start()
    put_right(world.cell)
    while not all(machine.zero_speed for machine in world.cell.machines.values()):
        await asyncio.sleep(1.0)
        world.advance_cell()
    for is_closed in (True, False, True):  # a discrepancy is over after one clean cycle of its guard
        await asyncio.sleep(1.5 + 3 * world.swarm.poll_ms / 1000)  # several polls, and a late reply
        world.advance_cell()
        move_all(world.cell, is_closed=is_closed)
    _reconnect(world)  # a last state report, behind everything that was on its way
    await _come_together(world)
    if world.auditor.is_in_doubt:
        await _sit_out_doubt(world)
        await _come_together(world)


async def _come_together(world: World) -> None:
    looks = 0
    for _ in range(int(world.heal_s / LOOK_S)):
        await asyncio.sleep(LOOK_S)
        looks = looks + 1 if world.auditor.is_whole() else 0
        if looks * LOOK_S >= CALM_S:
            return


async def _sit_out_doubt(world: World) -> None:
    """Nothing is polled meanwhile, which would cost more than the rest of the run and show nothing new."""
    for ward in world.wards:
        await ward.node.stop()
    await asyncio.sleep(DOUBT_S)
    for ward in world.wards:
        ward.node.start()


def _reconnect(world: World) -> None:
    for connection in tuple(world.broker.connections):
        connection.cut("reset by peer")
