"""Random ways through worlds that are far too many to be explored: long, seeded, and every one ends in peace.

What a walk meets is judged like the states of a search, and the product's code is driven along it.
"""

from __future__ import annotations

import random

from tests.model.explore import Counterexample
from tests.model.invariants import is_agreed, wrong_now, wrong_when_agreed
from tests.model.replay import Driver, Recorder, check_gateway
from tests.model.world import FAIR, FAULTS, Bound, Model, Step, World

BOUND = Bound(events=8, faults=5, up=3, down=3, window=4)
STEPS = 120
PEACE_STEPS_MAX = 5000
"""Fair steps are drawn, not scheduled: this many are never needed for so small stores."""


def walk(seed: int, bound: Bound = BOUND) -> Counterexample | None:
    """One walk, then peace, then the same way with the product's code, which raises AssertionError if it leaves it."""
    dice = random.Random(seed)
    model = Model(protocol := Recorder(), bound)
    world = model.first()
    way: list[tuple[Step | None, World]] = [(None, world)]
    for number in range(STEPS + PEACE_STEPS_MAX):
        wrong = wrong_now(world)
        is_at_rest = wrong is None and is_agreed(world, protocol)
        if is_at_rest:
            wrong = wrong_when_agreed(world)
        if wrong is not None:
            return Counterexample(wrong, way)
        if is_at_rest and number >= STEPS:
            check_gateway(protocol)
            Driver(model.first()).follow(way)
            return None
        step, world = _drawn(dice, model, world, is_peace=number >= STEPS)
        way.append((step, world))
    return Counterexample("peace alone does not bring rest", way)


def _drawn(dice: random.Random, model: Model, world: World, *, is_peace: bool) -> tuple[Step, World]:
    """A fair step mostly; a fault of each kind as often as any other."""
    possible = list(model.steps(world))
    fair = [found for found in possible if found[0].act in FAIR]
    acts = sorted({step.act for step, _ in possible if step.act not in FAIR})
    if is_peace or not acts or dice.random() < 0.5:
        return dice.choice(fair)
    weights = [1 if act in FAULTS else 6 for act in acts]
    act = dice.choices(acts, weights)[0]
    return dice.choice([found for found in possible if found[0].act is act])
