"""Row 2: both stores killed at each system call that persists, one after the other (see `tests.crash_points`)."""

from __future__ import annotations

from pathlib import Path

from tests.crash_points import SYSCALLS, CrashBench, Tally
from tests.crash_workloads import WORKLOADS


def sweep_all(folder: Path) -> list[Tally]:
    """Kill every workload at every call; one tally for each workload and call."""
    with CrashBench(folder) as bench:
        return [bench.sweep(workload, syscall) for workload in WORKLOADS for syscall in SYSCALLS]
