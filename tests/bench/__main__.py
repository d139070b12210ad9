"""`python -m tests.bench [NAME …]`: run the named benchmarks, or all, and print one table each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tests.bench import configuration, end_to_end, hot_path

BENCHMARKS: Mapping[str, Callable[[], None]] = {
    "configuration": configuration.run,
    "hot-path": hot_path.run,
    "end-to-end": end_to_end.run,
}


def main() -> None:
    """Run what was asked for."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)} — there are {', '.join(BENCHMARKS)}")
    for name in names:
        print(f"== {name}", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
