"""Figures of benchmarks: percentiles and paired timing within one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence


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
