"""`python -m tests.simulation SEED …`: runs seeds and tells of each what was drawn, what was found, and its trace."""

from __future__ import annotations

import logging
import sys

from tests.simulation.runs import run_seed


def main(arguments: list[str]) -> int:
    """Run the seeds; 1 when any promise was broken."""
    logging.disable(logging.CRITICAL)
    is_kept = True
    for seed in map(int, arguments):
        world = run_seed(seed)
        print(f"seed {seed} trace {world.trace} events {len(world.auditor.said)}\n  {world.swarm}")
        for finding in world.auditor.findings:
            print(f"  {finding}")
            is_kept = False
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
