"""`python -m tests.model --bound small|medium|large`: explores the delivery protocol; 1 when a promise can be broken."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.bounds import BOUNDS, Size
from tests.model.explore import explore
from tests.model.protocol import Protocol
from tests.model.world import Model


def main(arguments: list[str]) -> int:
    """Explore each bound of a size and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--bound", type=Size, choices=list(Size), default=Size.SMALL)
    parser.add_argument("names", nargs="*", help="only these of its searches")
    chosen = parser.parse_args(arguments)
    is_kept = True
    for name, bound in BOUNDS[chosen.bound].items():
        if chosen.names and name not in chosen.names:
            continue
        started_s = time.perf_counter()
        graph, counterexample = explore(Model(Protocol(), bound))
        print(
            f"{name}: events {bound.events} faults {bound.faults} up {bound.up} down {bound.down} window {bound.window}: "
            f"{len(graph.worlds)} states, {graph.transitions} transitions, {len(graph.agreed)} at rest, "
            f"{time.perf_counter() - started_s:.0f} s: {'BROKEN' if counterexample else 'every promise kept'}",
            flush=True,
        )
        if counterexample is not None:
            print(counterexample)
            is_kept = False
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
