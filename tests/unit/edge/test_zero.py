"""Zero is a value, and nothing else is zero: of a guard contact 0 means open, and must never be lost or made up."""

from __future__ import annotations

import pytest

from edge_agent.wire.event import GuardChanged, GuardState, Quality, ViolationRaised
from tests.unit.edge.rig import Layout, Rig, cell


def states(rig: Rig) -> list[GuardState]:
    return [item.state for item in rig.bodies(GuardChanged) if item.guard == "door"]


def test_an_open_door_is_told_and_published_at_the_first_poll() -> None:
    rig = Rig(cell())
    rig.run(200, closed=0)
    assert states(rig) == [GuardState.OPEN]
    assert GuardState.OPEN in {view.state for view in rig.published if view.guard == "door"}


def test_all_zeros_are_published_again_after_each_gap() -> None:
    rig = Rig(cell())
    rig.run(600, closed=0)
    for _ in range(3):
        rig.dead = {"plc1"}
        rig.run(4000)
        rig.dead = set()
        rig.published.clear()
        rig.run(200)
        assert [view.state for view in rig.published if view.guard == "door"] == [GuardState.OPEN]
    assert states(rig) == [GuardState.OPEN, *[GuardState.UNKNOWN, GuardState.OPEN] * 3]


def test_an_open_door_is_published_after_a_restart_though_nothing_has_changed() -> None:
    rig = Rig(cell())
    rig.run(600, closed=0)
    rig.restart(epoch="01RUN0000B")
    rig.published.clear()
    rig.run(200)
    assert [view.state for view in rig.published if view.guard == "door"] == [GuardState.OPEN]


@pytest.mark.parametrize("reason", ["exception:6", "exception:5", "timeout", "short", "link"])
def test_a_busy_or_silent_controller_never_opens_a_door(reason: str) -> None:
    rig = Rig(cell())
    rig.run(1000, running=1)
    for _ in range(100):
        rig.poll(fail={"plc1"}, reason=reason)
        rig.now_ms += 200
    assert states(rig) == [GuardState.CLOSED, GuardState.UNKNOWN]
    assert [item for item in rig.bodies(ViolationRaised) if item.basis.value == "proven" and item.guard] == []
    assert rig.door().quality is Quality.COMM_BAD


def test_one_busy_answer_among_good_ones_changes_nothing() -> None:
    rig = Rig(cell(Layout(motion=("running", "speed"))))
    rig.run(1000, running=1, speed=50)
    for _ in range(5):
        rig.poll(fail={"plc1", "drive"}, reason="exception:6")
        rig.now_ms += 200
        rig.run(400)
    assert states(rig) == [GuardState.CLOSED]
    assert [view.moving for view in rig.engine.machine_views()] == [True]
