"""R22: actuated at the first sample, told when it is left, power loss suspected."""

from __future__ import annotations

import pytest

from edge_agent.wire.event import ViolationChanged, ViolationRaised
from tests.unit.edge.rig import Layout, Rig, cell, ns

NAME = "estop"


def running() -> Rig:
    rig = Rig(cell(Layout(door_rules=(), device_rules=())))
    rig.run(1000)
    return rig


def test_a_pressed_button_is_raised_at_the_first_good_sample() -> None:
    rig = running()
    rig.run(200, estop=0)
    assert rig.story(NAME) == ["1000 +P2"]
    [raised] = rig.bodies(ViolationRaised)
    assert (raised.guard, raised.evidence["held_max_ms"]) == ("estop", 0)
    assert "panel_power_suspected" not in raised.evidence


def test_a_button_pressed_at_the_first_look_of_a_new_store_is_raised_too() -> None:
    rig = Rig(cell(Layout(device_rules=())))
    rig.run(200, estop=0)
    assert rig.story(NAME) == ["0 +P2"]


def test_an_unknown_button_raises_nothing_and_clears_nothing() -> None:
    rig = running()
    rig.dead = {"plc1"}
    rig.run(60_000)
    assert rig.story(NAME) == []
    rig.dead = set()
    rig.run(200, estop=0)
    rig.dead = {"plc1"}
    rig.run(60_000)
    assert len(rig.story(NAME)) == 1


def test_it_clears_after_its_off_delay() -> None:
    rig = running()
    rig.run(3000, estop=0)
    rig.run(4000, estop=1)
    assert rig.story(NAME) == ["1000 +P2", "6000 -returned_to_normal"]


def test_left_pressed_it_is_told_once_at_the_same_priority() -> None:
    rig = running()
    rig.run(4_000_000, estop=0, poll_ms=1000)
    assert rig.story(NAME) == ["1000 +P2", "1801000 >P2 unreset"]
    [changed] = rig.bodies(ViolationChanged)
    assert changed.was == changed.priority


def test_left_pressed_while_unknown_it_is_told_when_it_is_seen_again() -> None:
    rig = running()
    rig.run(1000, estop=0)
    rig.dead = {"plc1"}
    rig.run(2_000_000, poll_ms=1000)
    assert len(rig.story(NAME)) == 1
    rig.dead = set()
    rig.run(200)
    assert rig.story(NAME)[-1] == "2002000 >P2 unreset"


@pytest.mark.parametrize(("boot", "told_at"), [("boot-1", 1_801_000), ("boot-2", 2_801_000)])
def test_the_time_it_was_left_goes_on_over_a_restart_and_begins_anew_in_another_boot(
    boot: str, told_at: int
) -> None:
    rig = running()
    rig.run(1_000_000, estop=0, poll_ms=1000)
    rig.restart(epoch="01RUN0000B", boot=boot)
    rig.run(3_000_000, poll_ms=1000)
    rig.restart(epoch="01RUN0000C", boot=boot)
    rig.run(3_000_000, poll_ms=1000)
    assert rig.story(NAME) == ["1000 +P2", f"{told_at} >P2 unreset"]


# Panel power.


def test_when_everything_that_is_one_when_healthy_falls_together_power_loss_is_suspected() -> None:
    rig = running()
    rig.run(200, estop=0, closed=0)
    [raised] = rig.bodies(ViolationRaised)
    assert raised.evidence["panel_power_suspected"] is True


def test_an_open_door_beside_a_pressed_button_is_no_power_loss() -> None:
    rig = running()
    rig.run(5000, closed=0)
    rig.run(2000, estop=0)
    assert "panel_power_suspected" not in rig.bodies(ViolationRaised)[0].evidence
    assert rig.bodies(ViolationChanged) == []


@pytest.mark.parametrize(("later_ms", "told"), [(200, ["panel_power"]), (600, [])])
def test_signals_that_fall_within_two_polls_after_the_raise_still_count(
    later_ms: int, told: list[str]
) -> None:
    rig = running()
    rig.run(later_ms, estop=0)
    rig.run(1000, closed=0)
    assert [item.reason for item in rig.bodies(ViolationChanged)] == told


def test_the_raise_never_waits_for_the_other_signals() -> None:
    rig = running()
    rig.set(estop=0)
    rig.poll()
    assert [raised.rule for raised in rig.bodies(ViolationRaised)] == [NAME]
    assert rig.drafts[-1].observed == ns(1000)
