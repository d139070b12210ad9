"""`python -m tests.outage.synced MODULE ARGUMENT …`: run a module in whose eyes the kernel's clock is synchronised.

A plant gateway's clock is; whether this machine's is must not decide what is tried (of an agent without a synchronised clock
nobody knows when its events happened, so nothing that it tells late counts as late).
"""

from __future__ import annotations

import runpy
import sys

from edge_agent.adapters import clock_system


def main() -> None:
    """Put the kernel's answer in place and run the module as `python -m` would."""
    clock_system._find_adjtimex = lambda: lambda _timex: 0  # type: ignore[assignment,return-value]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
