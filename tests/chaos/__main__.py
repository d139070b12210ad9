"""`python -m tests.chaos [--minutes N] [--kills N] [--seed N] [--round K] [--rows ROW …] [--json FILE]`: break it, count, tell.

Exit code 1 when anything was lost, unexpected, duplicated or out of order, or a round could not be brought to its end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from simulators.servers import find_influxd, find_nft, find_strace
from tests.chaos.faults import memory, versions
from tests.chaos.faults.base import Need
from tests.chaos.plant import Options
from tests.chaos.report import Report
from tests.chaos.round import Plan, Result, play
from tests.chaos.schedule import FAULTS, FULL, deal, needs_of, row_of
from tests.chaos.sweeps import CUT, KILLED, cut_all, sweep_all
from tests.crash_points import Tally

PLANTS: Final = 4
"""Side by side: as many as two cores carry without starving anybody."""

ROUND_S: Final = 150.0
AROUND_S: Final = 35.0
"""What a round takes beside: start, drain, books."""

KILL_EVERY_S: Final = FULL.kill_mean_s + 0.9
"""Kills wait while somebody else has their victim in hand."""

KEPT_IN: Final = Path(tempfile.gettempdir()) / "guardwatch-chaos-kept"
"""Rounds do not repeat to the millisecond: what a bad one leaves is the only evidence there is."""

MINUTES: Final = 18.0
KILLS: Final = 1000
FAULTS_PER_ROUND: Final = 8


Sweep: TypeAlias = "Callable[[Path], list[Tally]]"


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; the exit code."""
    options = _options(arguments)
    missing = lacking()
    asked = [name for names in options.rows for name in names]
    names = [name for name in asked if not needs_of(name) & missing.keys()]
    not_run = {
        name: ", ".join(missing[need] for need in needs_of(name) & missing.keys())
        for name in asked
        if name not in names
    }
    sweeps: dict[int, Sweep] = {KILLED: sweep_all, CUT: cut_all}
    if find_strace() is None:
        not_run["crash points"] = "no strace on this machine — run `make servers`"
        sweeps.clear()
    elif missing.keys() & {Need.ROOT, Need.EXT4}:
        not_run["crash points with power cuts"] = "needs root, mkfs.ext4 and loop devices"
        del sweeps[CUT]
    if options.round is not None:
        sweeps.clear()
    with tempfile.TemporaryDirectory(prefix="guardwatch-chaos-") as scratch:
        is_older_asked = any(Need.HISTORY in needs_of(name) for name in names)
        before = versions.unpack(Path(scratch) / "before") if is_older_asked else None
        plans = _plans(options, names, Path(scratch), before)
        print(
            f"seed {options.seed}: {len(plans)} rounds of {plans[0].length_s:.0f} s, {PLANTS} side by side",
            flush=True,
        )
        started_s = time.monotonic()
        results, tallies = _play_all(plans, sweeps, Path(scratch))
        report = Report(options.seed, results, not_run, time.monotonic() - started_s, tallies)
    print("\n".join(report.lines()), flush=True)
    if not report.is_good:
        print(f"logs and stores of the bad rounds: {options.keep}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report.document(), indent=1) + "\n")
    return 0 if report.is_good else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long it may take, about")
    parser.add_argument("--kills", type=int, default=KILLS, help="of agent, gateway and broker, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="only this round of the seed")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        type=_faults_of,
        default=[sorted(FAULTS)],
        help=f"faults beside the kills, by row of the fault matrix or by name ({', '.join(sorted(FAULTS))})",
    )
    parser.add_argument("--json", type=Path, help="the report, for machines")
    parser.add_argument(
        "--keep",
        type=Path,
        default=KEPT_IN,
        help="copy logs and stores of bad rounds here (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _faults_of(text: str) -> list[str]:
    """The names that a row's number or a name stands for. Raises ArgumentTypeError when there is none."""
    names = [name for name in sorted(FAULTS) if text in {name, str(row_of(name))}]
    if not names:
        raise argparse.ArgumentTypeError(
            f"there is no fault `{text}` — choose from {', '.join(sorted(FAULTS))}"
        )
    return names


def lacking() -> dict[Need, str]:
    """What this machine has not, and how to get it."""
    lacking = {}
    if os.geteuid() != 0:
        lacking[Need.ROOT] = "needs root, for network namespaces and mounts"
    if find_nft() is None:
        lacking[Need.NFT] = "no nft on this machine — run `make servers`"
    if find_influxd() is None:
        lacking[Need.INFLUX] = "no influxd on this machine — run `make servers`"
    if not memory.has_groups():
        lacking[Need.MEMORY_GROUP] = "no memory control groups (version 1) that can be written"
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        lacking[Need.EXT4] = "no mkfs.ext4, or no loop devices"
    if versions.commit_before() is None:
        lacking[Need.HISTORY] = "no history in this checkout that goes back to the version before"
    return lacking


def _plans(options: argparse.Namespace, names: list[str], scratch: Path, before: Path | None) -> list[Plan]:
    """As many rounds as the kills need, cut to the time there is."""
    waves = max(1, int(options.minutes * 60 / (ROUND_S + AROUND_S)))
    length_s = min(ROUND_S, max(20.0, options.minutes * 60 / waves - AROUND_S))
    wanted = -(-options.kills * KILL_EVERY_S // length_s)
    count = int(min(waves * PLANTS, max(1, wanted)))
    numbers = range(count) if options.round is None else [options.round]
    plans = [_plan(options, number, length_s, names, scratch) for number in numbers]
    return [replace(plan, options=replace(plan.options, version_before=before)) for plan in plans]


def _plan(options: argparse.Namespace, number: int, length_s: float, names: list[str], scratch: Path) -> Plan:
    faults = tuple(deal(options.seed, number, FAULTS_PER_ROUND, names)) if names else ()
    return Plan(
        seed=options.seed,
        number=number,
        length_s=length_s,
        faults=faults,
        folder=scratch / f"round-{number}",
        options=Options(
            keeps_sessions=number % 2 == 1,
            has_influx="influx-away" in faults,
            is_clock_steered="clock-step" in faults,
            is_on_images=bool({"power-cut", "aborted-disk"} & set(faults)),
        ),
        keep=options.keep,
    )


def _play_all(
    plans: Sequence[Plan], sweeps: Mapping[int, Sweep], scratch: Path
) -> tuple[list[Result], dict[int, list[Tally]]]:
    """Several rounds at once, each in a process of its own, told as they end; and the sweeps beside them."""
    results = []
    context = multiprocessing.get_context("spawn")
    signal.signal(signal.SIGTERM, _end_all)
    with ProcessPoolExecutor(PLANTS, mp_context=context, max_tasks_per_child=1) as pool:
        # together they take as long as three rounds
        sweeping = {row: pool.submit(sweep, scratch / f"sweep-{row}") for row, sweep in sweeps.items()}
        rounds = [pool.submit(play, plan) for plan in plans]
        for done in as_completed(rounds):
            result = done.result()
            results.append(result)
            verdict = (
                result.failure.splitlines()[-1]
                if result.failure
                else f"{len(result.books.findings)} findings"
            )
            print(
                f"round {result.number}: {len(result.struck)} faults, {result.books.events} events, "
                f"{result.books.musts} openings, {verdict}, {result.took_s:.0f} s",
                flush=True,
            )
        tallies = {row: swept.result() for row, swept in sweeping.items()}
    return sorted(results, key=lambda result: result.number), tallies


def _end_all(number: int, _: object) -> NoReturn:
    """Let every round take its plant down, then end."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join()
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
