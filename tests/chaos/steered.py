"""`python -m tests.chaos.steered FILE MODULE ARGUMENT …`: run a module whose wall clock is ahead by FILE's seconds.

Our programs read the wall clock by these three functions of `time` alone; monotonic clocks stay real. (libfaketime,
which steps the clock of any process, was tried: under it the waits of threads take seconds, and an agent that polls every
100 ms polls every other second. That is no step of a clock any more.)
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

NS_PER_S: Final = 1_000_000_000


def steer(file: Path, read_ns: Callable[[], int]) -> Callable[[], int]:
    """A clock that is ahead of `read_ns` by what stands in the file at each reading."""

    def steered_ns() -> int:
        text = file.read_text()  # empty for the moment in which it is written
        return read_ns() + int(text or 0) * NS_PER_S

    return steered_ns


def main() -> None:
    """Put the clocks in place and run the module as `python -m` would."""
    file, module = Path(sys.argv[1]), sys.argv[2]
    steered_ns, gettime_ns = steer(file, time.time_ns), time.clock_gettime_ns
    time.time_ns = steered_ns
    time.time = lambda: steered_ns() / NS_PER_S
    time.clock_gettime_ns = lambda clock: steered_ns() if clock == time.CLOCK_REALTIME else gettime_ns(clock)
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
