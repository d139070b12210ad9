"""One seed is one run, whatever the hash seed of the process, whatever ran before it, whichever process it is in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simulators.draw import Draw
from tests.simulation.plants import CONFIG
from tests.simulation.runs import run_seed
from tests.simulation.swarm import TROUBLES, calm, draw_swarm

SEEDS = ["--first", "26", "--seeds", "4"]


def start(hash_seed: str, jobs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", *SEEDS, "--jobs", str(jobs), "--traces"],
        cwd=CONFIG.parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.thorough
def test_seeds_give_the_same_traces_in_processes_that_hash_differently_one_or_two_at_a_time() -> None:
    runs = [start("1", 1), start("2", 2)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    traces = [[line for line in text.splitlines() if " trace " in line] for text in said]
    assert traces[0] == traces[1]
    assert len(traces[0]) == 4


@pytest.mark.thorough
def test_a_seed_alone_is_what_it_was_among_others() -> None:
    assert run_seed(27).trace == run_seed(27).trace


def test_other_seeds_draw_other_troubles() -> None:
    assert len({str(draw_swarm(Draw(seed).split("swarm"))) for seed in range(50)}) == 50


def test_every_trouble_is_on_in_some_seeds_and_off_in_others() -> None:
    drawn = [set(draw_swarm(Draw(seed).split("swarm")).troubles()) for seed in range(200)]
    assert set.union(*drawn) == set(TROUBLES)
    assert [name for name in TROUBLES if sum(name in troubles for troubles in drawn) > 190] == [
        "bus_latency_ms_max",
        "net_latency_ms_max",
        "receive_max",
        "agent_drift_ppm",
    ]


def test_switching_a_trouble_off_leaves_the_others_as_they_were() -> None:
    swarm = draw_swarm(Draw(3).split("swarm"))
    off = swarm.troubles()[:2]
    rest = swarm.without(off)
    assert rest.troubles() == swarm.troubles()[2:]
    assert rest.length_s == swarm.length_s
    assert swarm.without(TROUBLES).troubles() == calm().troubles() == []
    with pytest.raises(ValueError, match="no such trouble: weather"):
        swarm.without(["weather"])
