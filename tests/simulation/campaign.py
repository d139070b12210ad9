"""Many seeds: in several processes if wanted, with a summary of what was explored and what it cost.

Every seed is a run of its own, so neither the order nor the number of processes changes what any of them does. A run
that breaks off is a failed seed like any other: the campaign goes on.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from simulators.draw import Draw
from tests.simulation.findings import Check, Finding
from tests.simulation.runs import Run, run_seed
from tests.simulation.swarm import draw_swarm

PROGRESS_EVERY = 100
"""Seeds between two lines of progress."""


@dataclass(slots=True)
class Tally:
    """What a campaign was."""

    seeds: int = 0
    failed: list[int] = field(default_factory=list)
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    events: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    findings: Counter[Check] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """One more."""
        self.seeds += 1
        self.virtual_s += run.virtual_s
        self.cpu_s += run.cpu_s
        self.events += run.events
        self.struck.update(run.struck)
        self.findings.update({finding.check for finding in run.findings})
        if not run.is_kept:
            self.failed.append(run.seed)

    def __str__(self) -> str:
        """The summary."""
        cpu_s = self.cpu_s or 1.0
        faults = self.struck.total()
        kinds = len(self.struck)
        explored = f"{self.virtual_s / 3600:.1f} virtual hours, {self.events} events, {faults} faults and acts of {kinds} kinds"
        rates = [
            f"{60 * count / cpu_s:.0f} {name}"
            for count, name in ((self.seeds, "seeds"), (self.events, "events"), (faults, "faults"))
        ]
        lines = [
            f"{self.seeds} seeds, {self.seeds - len(self.failed)} kept every promise",
            f"  {explored}",
            f"  {cpu_s:.0f} s of processor: {', '.join(rates)} a minute of one core",
            *(f"  {times:8} {kind}" for kind, times in sorted(self.struck.items())),
            *(f"  broken in {times} seeds: {check}" for check, times in sorted(self.findings.items())),
        ]
        if self.failed:
            lines.append(f"  failed: {' '.join(map(str, self.failed))}")
        return "\n".join(lines)


def run_campaign(
    seeds: Sequence[int],
    jobs: int,
    tell: Callable[[Run, Tally], None],
    live: Callable[[int], Run] = run_seed,
) -> Tally:
    """Live through the seeds, in their order; `tell` hears of each."""
    tally = Tally()
    with _runner(jobs) as run:
        for lived in run(partial(_live_whatever_comes, live), seeds):
            tally.add(lived)
            tell(lived, tally)
    return tally


def _live_whatever_comes(live: Callable[[int], Run], seed: int) -> Run:
    try:
        return live(seed)
    except Exception as error:  # noqa: BLE001 — a mistake in the world, and a finding of this seed
        told = "".join(traceback.format_exception(error))
        finding = Finding(Check.NOBODY_DIES_BY_HIMSELF, 0.0, f"the run broke off: {told}")
        return Run(seed, draw_swarm(Draw(seed).split("swarm")), "none", (finding,), 0.0, 0.0, 0, Counter())


@contextmanager
def _runner(jobs: int) -> Iterator[Callable[[Callable[[int], Run], Sequence[int]], Iterator[Run]]]:
    if jobs == 1:
        yield map
        return
    # forked, they bear the command's name: whoever stops the command by it stops them too
    with multiprocessing.get_context("fork").Pool(jobs, prepare) as pool:
        yield pool.imap


def prepare() -> None:
    """For a process that only lives through seeds: the product logs what goes wrong, and here everything does."""
    logging.disable(logging.CRITICAL)
    gc.freeze()
