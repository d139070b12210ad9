"""Figures of benchmarks: percentiles and paired timing within one run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of a non-empty sample."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)]


def time_of(work: Callable[[], None], rounds: int) -> float:
    """Median seconds of one call over `rounds` calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return percentile(times, 50)


def cores() -> tuple[set[int], set[int]]:
    """A core for what is measured, and the others."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        print("only one core: the measured process shares it with everything else")
        return set(found), set(found)
    return {found[0]}, set(found[1:])


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
