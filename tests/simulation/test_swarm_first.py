"""Seeds of the swarm, one half: every promise of the product under everything that can go wrong (see `world`)."""

from __future__ import annotations

import pytest

from tests.simulation.runs import assert_kept, run_seed
from tests.simulation.suite import seeds


@pytest.mark.parametrize("seed", seeds(0, 2))
def test_every_promise_is_kept(seed: int) -> None:
    assert_kept(run_seed(seed))
