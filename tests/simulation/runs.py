"""One seed's run: what campaigns, tests, and people with a seed in their hands call."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulators.draw import Draw
from tests.simulation.findings import Check, Finding
from tests.simulation.plants import MACHINES, deal
from tests.simulation.swarm import Swarm, draw_swarm
from tests.simulation.virtual_loop import NS_PER_S, DeadlockError, LivelockError, run_virtual
from tests.simulation.world import World

MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's run, lived through. `struck` counts what befell it, by kind; `cpu_s` is what it cost."""

    seed: int
    swarm: Swarm
    trace: str
    findings: tuple[Finding, ...]
    virtual_s: float
    cpu_s: float
    events: int
    struck: Counter[str]

    @property
    def is_kept(self) -> bool:
        """Whether no promise was broken."""
        return not self.findings

    def __str__(self) -> str:
        """Its result on one line, and what was found on lines of its own."""
        lines = [f"seed {self.seed} trace {self.trace} events {self.events}", f"  {self.swarm}"]
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings)])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a run's files, in memory where there is such a place; the same for every run of a process."""
    folder = (MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())) / f"guardwatch-world-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # a killed process of this number may have left it
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_seed(seed: int, without: Collection[str] = ()) -> Run:
    """Live through one seed, with some of its troubles switched off. Raises `ValueError` for what is no trouble."""
    swarm = draw_swarm(Draw(seed).split("swarm")).without(without)
    before_s = _cpu_s()
    with scratch() as folder:
        hand = Draw(seed).split("machines")
        machines = sorted(MACHINES, key=lambda name: hand.split(name).bits())[: swarm.machines]
        world = World(seed, folder, deal(tuple(machines), swarm.agents, swarm.poll_ms), swarm)
        try:
            run_virtual(world.run)
        except (DeadlockError, LivelockError) as error:
            world.auditor.find(Check.NOBODY_DIES_BY_HIMSELF, str(error))
        except BaseException as error:
            error.add_note(f"in seed {seed}")
            raise
    return Run(
        seed,
        swarm,
        world.trace,
        tuple(world.auditor.findings),
        world.loop.now_ns / NS_PER_S,
        _cpu_s() - before_s,
        sum(len(ward.said) for ward in world.auditor.wards),
        world.troubles.struck + world.operators.struck + _weather_of(world),
    )


def _weather_of(world: World) -> Counter[str]:
    """What the links and the network did, which no trouble had to be called for."""
    struck: Counter[str] = Counter()
    struck["finding without room"] = len({at for ward in world.auditor.wards for at in ward.losses})
    for ward in world.auditor.wards:
        struck["read failed"] += sum(
            not read.is_good for device in ward.plan.devices for read in ward.served.of(device)
        )
    struck.update(world.broker.mischief)
    return struck


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def assert_kept(run: Run) -> None:
    """No promise was broken; else everything that is needed to see it again."""
    assert run.is_kept, f"{run}\n  again: python -m tests.simulation --seed {run.seed}"
