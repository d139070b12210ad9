"""R17: bypass, mode, motion and permit, over every combination."""

from __future__ import annotations

import itertools

import pytest

from edge_agent.domain.rule_bypass import is_auto_like
from edge_agent.wire.event import GuardState, ViolationChanged, ViolationCleared, ViolationRaised
from tests.unit.edge.rig import MODES, R17, R29, Layout, Rig, cell

NAME = "bypass_active"
AUTO, SETUP, MAINT, LOCAL, UNMAPPED = 0, 1, 2, 3, 9
LAYOUT = Layout(door_rules=(R17,), device_rules=(), door_signals=("ch_a", "bypass"), estop=False, permit=True)


def rig_in(mode: int, moving: bool | None, permit: int, layout: Layout = LAYOUT) -> Rig:
    """A good minute in this mode, moving or standing, with or without a permit; None: the drive is silent."""
    rig = Rig(cell(layout))
    rig.dead = {"drive"} if moving is None else set()
    rig.run(60_000, mode=mode, running=int(bool(moving)), permit=permit)
    return rig


def story(rig: Rig) -> list[str]:
    return [f"{int(line.split()[0]) - 60_000} {line.split(' ', 1)[1]}" for line in rig.story(NAME)]


def expected(mode: int, moving: bool | None, permit: int) -> list[str]:
    """The rows, as sentences, for a bypass of half a minute."""
    if mode in {AUTO, UNMAPPED}:
        if moving is True:
            return ["1000 +P1"]  # automatic running over a suspended guard, permit or not
        if moving is None:
            return ["5000 +P2?"]  # motion cannot be excluded
    return [] if permit else ["1000 +P2"]  # attended or standing: only a permit excuses it


@pytest.mark.parametrize(
    ("mode", "moving", "permit"),
    list(itertools.product([AUTO, UNMAPPED, SETUP, MAINT, LOCAL], [True, False, None], [0, 1])),
)
def test_each_row_of_the_truth_table(mode: int, moving: bool | None, permit: int) -> None:
    rig = rig_in(mode, moving, permit)
    rig.run(30_000, bypass=1)
    assert story(rig) == expected(mode, moving, permit)


@pytest.mark.parametrize(("mode", "moving"), list(itertools.product([AUTO, SETUP], [True, False, None])))
def test_no_bypass_is_no_violation_and_an_unknown_one_neither_raises_nor_clears(
    mode: int, moving: bool | None
) -> None:
    rig = rig_in(mode, moving, 0)
    rig.run(5000)
    assert story(rig) == []
    rig.run(6000, bypass=1)
    told = story(rig)
    rig.dead = rig.dead | {"plc1"}
    rig.run(60_000, bypass=0)
    assert story(rig) == told
    assert rig.door().state is GuardState.UNKNOWN


def test_a_mode_that_is_not_wired_counts_as_automatic() -> None:
    layout = Layout(
        door_rules=(R17,), device_rules=(), door_signals=("ch_a", "bypass"), estop=False, mode=False
    )
    rig = rig_in(AUTO, True, 0, layout)
    rig.run(3000, bypass=1)
    assert story(rig) == ["1000 +P1"]


def test_a_machine_whose_motion_nothing_tells_is_judged_by_its_permit() -> None:
    layout = Layout(
        door_rules=(R17,), device_rules=(), door_signals=("ch_a", "bypass"), estop=False, motion=()
    )
    rig = rig_in(AUTO, False, 0, layout)
    rig.run(30_000, bypass=1)
    assert story(rig) == ["1000 +P2"]


@pytest.mark.parametrize("word", [*MODES.values(), "Auto", "SETUP", "jog", None])
def test_only_the_attended_modes_are_not_automatic(word: str | None) -> None:
    assert is_auto_like(word) is (word not in {"setup", "SETUP", "MAINT", "local"})


def test_a_permitted_bypass_that_lasts_too_long_is_raised_once_permitless_ms_have_gone_by() -> None:
    rig = rig_in(SETUP, True, 1)
    rig.run(899_800, bypass=1)
    assert story(rig) == []
    rig.run(400)
    assert story(rig) == ["900000 +P2"]


def test_a_permit_that_is_withdrawn_excuses_no_longer() -> None:
    rig = rig_in(SETUP, True, 1)
    rig.run(10_000, bypass=1)
    rig.run(2000, permit=0)
    assert story(rig) == ["11000 +P2"]


def test_an_open_occurrence_is_raised_further_when_the_machine_is_found_moving_and_never_lowered() -> None:
    rig = rig_in(AUTO, False, 0)
    rig.run(3000, bypass=1)
    rig.run(3000, running=1)
    rig.run(60_000, running=0)
    assert story(rig) == ["1000 +P2", "4000 >P1 moving"]
    [changed] = rig.bodies(ViolationChanged)
    assert (changed.was, changed.priority) == ("P2", "P1")


def test_a_raise_on_unknown_becomes_proven_by_motion_or_by_standing_without_a_permit() -> None:
    for running, told in ((1, ">P1 proven"), (0, ">P2 proven")):
        rig = rig_in(AUTO, None, 0)
        rig.run(10_000, bypass=1)
        rig.dead = set()
        rig.run(3000, running=running)
        assert story(rig) == ["5000 +P2?", f"11000 {told}"]


def test_it_clears_after_the_bypass_was_off_for_its_off_delay_and_an_interruption_starts_that_anew() -> None:
    rig = rig_in(AUTO, False, 0)
    rig.run(3000, bypass=1)
    rig.run(4000, bypass=0)
    rig.run(200, bypass=1)
    rig.run(8000, bypass=0)
    assert story(rig) == ["1000 +P2", "12200 -returned_to_normal"]
    [cleared] = rig.bodies(ViolationCleared)
    assert (cleared.priority, cleared.duration_ms) == ("P2", 12_200)


def test_the_priority_of_the_raise_stands_in_the_clear() -> None:
    rig = rig_in(AUTO, False, 0)
    rig.run(3000, bypass=1)
    rig.run(3000, running=1)
    rig.run(8000, bypass=0)
    assert rig.bodies(ViolationCleared)[0].priority == "P2"


def test_a_mode_that_goes_unknown_counts_as_automatic_from_then_on() -> None:
    rig = rig_in(SETUP, True, 1)
    rig.run(5000, bypass=1)
    rig.run(3000, mode=UNMAPPED)
    assert story(rig) == ["6000 +P1"]


def test_a_raise_on_unknown_is_hidden_while_the_blind_device_is_alarmed_already() -> None:
    layout = Layout(door_rules=(R17,), device_rules=(R29,), door_signals=("ch_a", "bypass"), estop=False)
    rig = rig_in(AUTO, None, 0, layout)
    rig.run(10_000, bypass=1)
    lost, bypass = rig.bodies(ViolationRaised)
    assert (lost.rule, bypass.rule, bypass.hidden_by) == ("monitoring_lost", NAME, lost.occurrence)
