"""Which of a failing seed's troubles are needed to see it fail?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.runs import Run, run_seed


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest run that still fails: the troubles that are left, and those that were not needed."""

    run: Run
    needed: tuple[str, ...]
    without: tuple[str, ...]


def shrink(
    seed: int,
    tell: Callable[[str], None] = lambda _line: None,
    run: Callable[[int, list[str]], Run] = run_seed,
) -> Shrunk | None:
    """Switch off one trouble after the other while one of the same promises stays broken; None for a seed that is green.

    Every trouble draws from a stream of its own, so that the others stay as they were; the result is minimal in that
    none of what is left can be switched off alone.
    """
    lived = run(seed, [])
    broken = {finding.check for finding in lived.findings}
    if not broken:
        return None
    off: list[str] = []
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for name in lived.swarm.troubles():
            tried = run(seed, [*off, name])
            if broken & {finding.check for finding in tried.findings}:
                off.append(name)
                lived, is_smaller = tried, True
                tell(f"fails without {name}")
    return Shrunk(lived, tuple(lived.swarm.troubles()), tuple(off))
