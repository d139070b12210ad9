"""`python -m tests.faults --replies 1000000 --seed 1`: counts the wrong values; exit code 1 when there is one."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.faults.campaign import Tally, run_campaign
from tests.faults.line import Kind
from tests.faults.truth import STALE_MS


def main(arguments: list[str]) -> int:
    """Run all framings; 1 when a value was wrong or shown too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--replies", type=int, default=1_000_000, help="sent by the slaves, over all framings"
    )
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # links tell of each lost connection
    tallies = []
    for kind in Kind:
        started_s = time.perf_counter()
        tally = run_campaign(kind, chosen.replies // len(Kind), chosen.seed)
        print(told(tally, time.perf_counter() - started_s), flush=True)
        tallies.append(tally)
    total = sum(tally.wrong_count for tally in tallies)
    replies = sum(tally.replies for tally in tallies)
    faults = sum(sum(tally.struck.values()) for tally in tallies)
    print(f"replies {replies}, of them {faults} faulty, seed {chosen.seed}: WRONG {total}")
    return 0 if all(tally.is_good for tally in tallies) else 1


def told(tally: Tally, took_s: float) -> str:
    """One framing's result, for people."""
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.struck.items()))
    refused = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.refused.items()))
    return "\n".join(
        [
            f"{tally.kind}: {tally.replies} replies in {tally.virtual_s:.0f} s of plant time, {took_s:.0f} s here",
            f"  faults   {struck}",
            f"  accepted {tally.accepted}, refused {sum(tally.refused.values())}: {refused}",
            f"  unknown  {tally.went_unknown} times, at most {tally.unknown_late_ms:.3f} ms after {STALE_MS} ms",
            f"  shown too long {tally.shown_too_long}",
            f"  WRONG    {tally.wrong_count}",
            *(f"    {text}" for text in tally.wrong),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
