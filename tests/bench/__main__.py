"""`python -m tests.bench [NAME …] [--seconds N] [--rows N …] [--entries N]`: run the named benchmarks, or all, and print one table each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from tests.bench import (
    acquisition,
    backlog,
    configuration,
    end_to_end,
    hot_path,
    ingest,
    judging,
    verifying,
)

BENCHMARKS: Mapping[str, Callable[[], None]] = {
    "configuration": configuration.run,
    "hot-path": hot_path.run,
    "judging": judging.run,
    "ingest": ingest.run,
    "burst": backlog.run_burst,
    "backlog": backlog.run_backlog,
    "end-to-end": end_to_end.run,
}
"""Those that take no options."""

ACQUISITION = "acquisition"
VERIFY = "verify"


def main() -> None:
    """Run what was asked for."""
    known = [*BENCHMARKS, ACQUISITION, VERIFY]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *known], help=", ".join(known))
    parser.add_argument("--seconds", type=float, default=acquisition.WINDOW_S, help="window of a row")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        metavar="N",
        choices=range(len(acquisition.ROWS)),
        help="of acquisition, from 0: all",
    )
    parser.add_argument(
        "--entries", type=int, default=verifying.ENTRIES, help="of verify: length of the record"
    )
    options = parser.parse_args()
    for name in options.names or known:
        print(f"== {name}", flush=True)
        if name == ACQUISITION:
            rows = options.rows or range(len(acquisition.ROWS))
            acquisition.run(options.seconds, [acquisition.ROWS[row] for row in rows])
        elif name == VERIFY:
            verifying.run(options.entries)
        else:
            BENCHMARKS[name]()


if __name__ == "__main__":
    main()
