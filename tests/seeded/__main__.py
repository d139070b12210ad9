"""`python -m tests.seeded [NAME …]`: plants each bug and says which test saw it; exit code 1 when one got through."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.seeded.bugs import BUGS
from tests.seeded.proof import SeedError, copy_code, prove, run_tests


def main(names: list[str]) -> int:
    """Prove the named bugs, or all; 1 when any was missed or could not be planted."""
    chosen = [bug for bug in BUGS if not names or bug.name in names]
    if len(chosen) < len(set(names)):
        print(f"known are: {', '.join(bug.name for bug in BUGS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        code, told = run_tests(copy_code(Path(folder)), [test for bug in chosen for test in bug.caught_by])
    if code != 0:
        print(f"without any bug:\n{told}")
        return 1
    print(f"without any bug: {told.strip().splitlines()[-1]}")
    caught = 0
    for bug in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = prove(bug, Path(folder))
            except SeedError as error:
                print(f"{bug.name:<11} NOT PLANTED {error}", flush=True)
                continue
        caught += outcome.is_caught
        print(f"{bug.name:<11} {'caught' if outcome.is_caught else 'MISSED'}  {bug.what}", flush=True)
        for test in bug.caught_by:
            print(f"            {'green' if test in outcome.missed else 'red  '}  {test}", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
