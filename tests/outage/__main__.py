"""A day without a network at ten times the design rate; exit code 1 when anything is not as promised.

python -m tests.outage virtual                  24 h of virtual time (some minutes of one core)
python -m tests.outage virtual --hours 2.4      a tenth of it
python -m tests.outage real                     real processes, at 100 times the speed: 864 s, then the drain
python -m tests.outage real --hours 1           36 s of it
python -m tests.outage real --speed 50          half as fast
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.outage import real, virtual
from tests.outage.verdict import Outcome
from tests.simulation.runs import scratch


def main(arguments: list[str]) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.outage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("world", choices=["virtual", "real"])
    parser.add_argument("--hours", type=float, default=24.0, help="without a link (24)")
    parser.add_argument("--speed", type=float, default=100.0, help="of the hall's time, real only (100)")
    parser.add_argument("--keep", type=Path, help="copy stores and logs here, real only")
    asked = parser.parse_args(arguments)
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {text}", flush=True)

    if asked.world == "virtual":
        with scratch() as folder:
            outcome = virtual.live_through(asked.hours, folder, say)
    else:
        outcome = _really(real.Scale(asked.hours, asked.speed), asked.keep, say=say)
    print("\n".join(outcome.lines()), flush=True)
    return 1 if outcome.problems else 0


def _really(scale: real.Scale, keep: Path | None, *, say: real.Say) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="guardwatch-outage-") as name:
        folder = Path(name) / "outage"
        try:
            return real.live_through(scale, folder, say)
        finally:
            if keep is not None:
                shutil.copytree(folder, keep, dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
