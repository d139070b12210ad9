"""No way within the small bounds breaks a promise; and the code goes every one of them as the model does."""

from __future__ import annotations

import pytest

from tests.model.bounds import BOUNDS, Size
from tests.model.explore import explore
from tests.model.replay import Recorder, check_gateway, follow_everything
from tests.model.walks import walk
from tests.model.world import Model

SMALL = BOUNDS[Size.SMALL]
WALKS = 100

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("name", SMALL)
def test_every_promise_is_kept_on_every_way_and_the_code_goes_the_same_ways(name: str) -> None:
    asked = Recorder()
    model = Model(asked, SMALL[name])
    graph, counterexample = explore(model)
    assert counterexample is None, f"\n{counterexample}"
    met = {step.act for world in graph.worlds[::10] for step, _ in model.steps(world)}
    assert met >= SMALL[name].kinds
    assert check_gateway(asked) > 0
    assert follow_everything(graph, model) > 0


def test_every_promise_is_kept_on_long_random_ways_with_many_faults() -> None:
    for seed in range(WALKS):
        counterexample = walk(seed)
        assert counterexample is None, f"seed {seed}\n{counterexample}"
