"""One seed is one run, whatever the hash seed of the process: a failing seed can always be seen again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simulators.draw import Draw
from tests.simulation.runs import CONFIG
from tests.simulation.swarm import draw_swarm

pytestmark = pytest.mark.thorough

SEED = 26


def start(hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", str(SEED)],
        cwd=CONFIG.parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_seed_gives_the_same_trace_in_processes_that_hash_differently() -> None:
    runs = [start("1"), start("2")]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1]
    assert "trace" in said[0]


def test_other_seeds_draw_other_troubles() -> None:
    assert len({str(draw_swarm(Draw(seed).split("swarm"))) for seed in range(50)}) == 50
