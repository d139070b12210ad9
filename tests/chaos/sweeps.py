"""Rows 2 and 3: both stores killed, or the power cut, at each system call that persists (see `tests.crash_points`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.chaos.disk import ImageDisk
from tests.crash_points import SYSCALLS, CrashBench, Tally
from tests.crash_workloads import WORKLOADS
from tests.power_cuts import SIZE_MB, PowerBench

KILLED, CUT = 2, 3
"""The rows of the fault matrix."""

CUTS: Final = {"fdatasync": 1, "pwrite64": 10}
"""Every so manieth call: between two that synchronise nothing new is on the disk, and mounting anew takes time."""


def sweep_all(folder: Path) -> list[Tally]:
    """Kill every workload at every call; one tally for each workload and call."""
    with CrashBench(folder) as bench:
        return [bench.sweep(workload, syscall) for workload in WORKLOADS for syscall in SYSCALLS]


def cut_all(folder: Path) -> list[Tally]:
    """Cut every workload's power, likewise."""
    with ImageDisk(folder / "disk", SIZE_MB) as disk, PowerBench(disk) as bench:
        return [
            bench.sweep(workload, syscall, every=every)
            for workload in WORKLOADS
            for syscall, every in CUTS.items()
        ]
