"""The board showed a door closed for as long as its opening was on the way, because the agent's beats arrived.

Beats go ahead of the stream. A broker that loses events, a long backlog after a silence, an agent whose store is full:
in each the agent is alive, and what it said last is not how it stands.
"""

from __future__ import annotations

from collections.abc import Callable

from simulators.acts import Act, Verb
from tests.simulation.crew import Script
from tests.simulation.findings import Check
from tests.simulation.suite import live
from tests.simulation.swarm import calm
from tests.simulation.world import World


def lose_the_stream(world: World) -> Script:
    """A door opens for 40 s, and of the stream nothing arrives meanwhile."""
    door = world.cell.machines["mixer-18"].guards["door-1"]
    yield 8_000
    world.broker.weather.forget_share = 1.0
    door.move(closed=False)
    yield 40_000
    world.broker.weather.forget_share = 0.0
    door.move(closed=True)
    yield 5_000


def fill_the_disk(world: World) -> Script:
    """A door opens for two minutes at an agent that can write nothing."""
    door = world.cell.machines["mixer-18"].guards["door-1"]
    yield 8_000
    begun_ns = world.loop.now_ns
    world.troubles.set_full(world.ward, is_full=True)
    world.cell.act(Act(Verb.PLC_STOP, device="plc-belt"))  # something to be written, now
    yield 8_000
    door.move(closed=False)
    yield 110_000
    world.troubles.set_full(world.ward, is_full=False)
    world.ward.unwritten.append((begun_ns, world.loop.now_ns))
    world.cell.act(Act(Verb.PLC_RUN, device="plc-belt"))
    door.move(closed=True)
    yield 5_000


def found(length_s: int, script: Callable[[World], Script]) -> list[str]:
    world = live(calm(length_s=length_s), script)
    return [str(item) for item in world.auditor.findings if item.check is not Check.UNKNOWN_WITHIN_BOUND]


def test_nothing_is_shown_closed_while_the_stream_lags_behind_the_beats() -> None:
    assert found(70, lose_the_stream) == []


def test_nothing_is_shown_closed_while_the_agents_store_is_full() -> None:
    """Neither on the board nor, for longer than they live, by the retained states."""
    assert found(140, fill_the_disk) == []
