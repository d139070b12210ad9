"""The model can fail: leave one rule out, and it shows how a promise is broken. So can the comparison with the code."""

from __future__ import annotations

import pytest

from tests.model import mutants
from tests.model.explore import explore
from tests.model.protocol import Protocol
from tests.model.replay import Recorder, check_gateway, follow_everything
from tests.model.world import Act, Bound, Model

pytestmark = pytest.mark.thorough

LOST = "which the gateway neither holds nor states as lost"
STUCK = "from here nothing comes to rest by itself"


def model_of(protocol: Protocol, events: int, faults: list[Act], *, up: int = 2, window: int = 2) -> Model:
    return Model(protocol, Bound(events, faults=len(faults), up=up, window=window, kinds=frozenset(faults)))


@pytest.mark.parametrize(
    ("protocol", "events", "faults", "wrong"),
    [
        (mutants.AcksBeforeItHolds, 1, [], LOST),
        (mutants.TrustsTheBroker, 0, [], LOST),
        (mutants.AcceptsOutOfOrder, 1, [], "the hole before E1/2 is stated nowhere"),
        (mutants.IgnoresResets, 0, [Act.DELETE_GATEWAY], STUCK),
        (mutants.KeepsItsEpoch, 1, [Act.IMAGE], "bear one key"),
        (mutants.ComparesNoHash, 2, [Act.SNAPSHOT], LOST),
        (mutants.StatesNoLoss, 1, [Act.LOSE_STORE], "nobody says so"),
        (mutants.LooksAtNoLink, 2, [Act.SNAPSHOT], LOST),
        (mutants.HidesWhatItCannotRead, 1, [Act.DAMAGE, Act.DELETE_GATEWAY], STUCK),
    ],
)
def test_a_protocol_without_one_rule_breaks_a_promise(
    protocol: type[Protocol], events: int, faults: list[Act], wrong: str
) -> None:
    graph, counterexample = explore(model_of(protocol(), events, faults, up=2 if len(faults) < 2 else 1))
    assert counterexample is not None
    assert wrong in counterexample.wrong
    assert len(str(counterexample).splitlines()) > len(counterexample.way) > 1
    assert counterexample.way[-1][1] in graph.worlds


@pytest.mark.parametrize(
    "bent",
    [mutants.AcksBeforeItHolds, mutants.AcceptsOutOfOrder, mutants.LooksAtNoLink],
)
def test_a_gateway_that_works_otherwise_is_told_from_the_code(bent: type[Protocol]) -> None:
    asked = type("Asked", (bent, Recorder), {})()
    explore(model_of(asked, 2, [Act.SNAPSHOT]))
    with pytest.raises(AssertionError):
        check_gateway(asked)


@pytest.mark.parametrize(
    ("bent", "events", "fault"),
    [
        (mutants.TrustsTheBroker, 0, Act.KILL),
        (mutants.IgnoresResets, 0, Act.DELETE_GATEWAY),
        (mutants.ComparesNoHash, 2, Act.SNAPSHOT),
    ],
)
def test_an_agent_that_works_otherwise_is_told_from_the_code(
    bent: type[Protocol], events: int, fault: Act
) -> None:
    model = model_of(bent(), events, [fault])
    graph, _ = explore(model)
    with pytest.raises(AssertionError):
        follow_everything(graph, model)
