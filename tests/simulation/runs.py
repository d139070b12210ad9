"""Running seeds: what tests, and people with a seed in their hands, call.

python -m tests.simulation 17        runs seed 17 and says what was drawn, found, and its trace
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from edge_agent.domain.plan import CellPlan
from edge_agent.settings import AgentSettings, load
from tests.simulation.virtual_loop import run_virtual
from tests.simulation.world import World

CONFIG: Final = Path(__file__).parents[2] / "config" / "demo" / "agent.yaml"
MEMORY: Final = Path("/dev/shm")

SEEDS: Final = int(os.environ.get("GUARDWATCH_SEEDS", "4"))
"""How many seeds a run of the suite tries: a few with every check, more in a full test, as many as you like by hand."""

FIRST_SEED: Final = int(os.environ.get("GUARDWATCH_FIRST_SEED", "1"))


@cache
def demo_plan() -> CellPlan:
    """The demo's configuration, compiled as the agent compiles it."""
    settings = load(CONFIG, {"GUARDWATCH_MQTT_PORT": "1883", "GUARDWATCH_SIM_PORT": "5020"})
    assert isinstance(settings, AgentSettings), settings
    return settings.plan


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a run's files, in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def run_seed(seed: int) -> World:
    """One seed's run, lived through."""
    with scratch() as folder:
        world = World(seed, folder, demo_plan())
        run_virtual(world.run)
    return world


def assert_kept(world: World) -> None:
    """No promise was broken; else everything that is needed to see it again."""
    found = "\n  ".join(str(finding) for finding in world.auditor.findings)
    assert not found, (
        f"seed {world.seed}\n  {found}\n  {world.swarm}\n  again: python -m tests.simulation {world.seed}"
    )


def seeds(part: int, parts: int) -> range:
    """The seeds of one of several test files: files run beside each other."""
    return range(FIRST_SEED + part, FIRST_SEED + SEEDS, parts)
