"""Which seeds a run of the test suite tries, and worlds for its stories."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from edge_agent.domain.plan import CellPlan
from tests.simulation.crew import Script
from tests.simulation.fieldbus import SimFieldbus
from tests.simulation.healing import HEAL_S
from tests.simulation.plants import demo_plan
from tests.simulation.runs import scratch
from tests.simulation.swarm import Swarm
from tests.simulation.virtual_loop import run_virtual
from tests.simulation.world import World

SEEDS: Final = int(os.environ.get("GUARDWATCH_SEEDS", "4"))
"""How many seeds a run of the suite tries: a few with every check, more in a full test, as many as you like by hand."""

FIRST_SEED: Final = int(os.environ.get("GUARDWATCH_FIRST_SEED", "1"))


def seeds(part: int, parts: int) -> range:
    """The seeds of one of several test files: files run beside each other."""
    return range(FIRST_SEED + part, FIRST_SEED + SEEDS, parts)


def live(
    swarm: Swarm,
    script: Callable[[World], Script] | None = None,
    plan: CellPlan | None = None,
    *,
    seed: int = 1,
    customise: Callable[[World], None] = lambda _world: None,
    bus: type[SimFieldbus] = SimFieldbus,
    heal_s: int = HEAL_S,
) -> World:
    """A world of one agent with the demo's plan (or `plan`), lived through; `script` acts in place of people."""
    with scratch() as folder:
        world = World(seed, folder, [plan or demo_plan(swarm.poll_ms)], swarm, heal_s=heal_s)
        world.script, world.customise, world.bus_class = script, customise, bus
        run_virtual(world.run)
    return world
