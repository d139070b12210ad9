"""Long runs of the deterministic world, and single seeds of it again.

python -m tests.simulation --seeds 10000 --jobs 2      seeds 1 to 10000, with a summary
python -m tests.simulation --seeds 500 --first 10001   the next ones
python -m tests.simulation --seed 17                   one again: what was drawn, found, and its trace
python -m tests.simulation --seed 17 --shrink          the fewest of its troubles with which it still fails
python -m tests.simulation --seed 17 --without cut_every_s,stall_share
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.campaign import PROGRESS_EVERY, Tally, prepare, run_campaign
from tests.simulation.runs import Run, run_seed
from tests.simulation.shrink import shrink


def main(arguments: list[str]) -> int:
    """Run what is asked for; 1 when any promise was broken, 2 for what is no trouble."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=int, metavar="N", help="run N seeds")
    what.add_argument("--seed", type=int, metavar="SEED", help="run one seed")
    parser.add_argument("--first", type=int, default=1, metavar="K", help="the first of the seeds (1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (1)")
    parser.add_argument("--traces", action="store_true", help="say every seed's trace")
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], metavar="NAME,…", help="troubles off"
    )
    parser.add_argument("--shrink", action="store_true", help="find the fewest troubles that still fail")
    asked = parser.parse_args(arguments)
    if asked.seeds is not None:
        return _run_many(range(asked.first, asked.first + asked.seeds), asked.jobs, is_tracing=asked.traces)
    if asked.shrink:
        return _shrink(asked.seed)
    try:
        run = run_seed(asked.seed, asked.without)
    except ValueError as error:
        parser.error(str(error))
    print(run)
    return 0 if run.is_kept else 1


def _run_many(seeds: range, jobs: int, *, is_tracing: bool) -> int:
    began_s = time.perf_counter()

    def tell(run: Run, tally: Tally) -> None:
        if not run.is_kept:
            print(f"{run}\n  again: python -m tests.simulation --seed {run.seed}", flush=True)
        elif is_tracing:
            print(f"seed {run.seed} trace {run.trace} events {run.events}", flush=True)
        if tally.seeds % PROGRESS_EVERY == 0:
            passed_s = time.perf_counter() - began_s
            left_s = passed_s / tally.seeds * (len(seeds) - tally.seeds)
            print(
                f"… {tally.seeds} of {len(seeds)} seeds, {len(tally.failed)} failed,"
                f" {tally.seeds / passed_s:.2f} a second ({tally.cpu_s / tally.seeds:.2f} s of processor each),"
                f" {left_s / 60:.0f} min to go",
                file=sys.stderr,
                flush=True,
            )

    tally = run_campaign(seeds, jobs, tell)
    print(tally)
    return 1 if tally.failed else 0


def _shrink(seed: int) -> int:
    shrunk = shrink(seed, lambda line: print(line, flush=True))
    if shrunk is None:
        print(f"seed {seed} keeps every promise")
        return 0
    print(shrunk.run)
    print(f"  needs: {', '.join(shrunk.needed) or 'no trouble at all'}")
    print(f"  again: python -m tests.simulation --seed {seed} --without {','.join(shrunk.without)}")
    return 1


if __name__ == "__main__":
    prepare()
    sys.exit(main(sys.argv[1:]))
