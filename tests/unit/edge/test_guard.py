"""A guard's displayed state: every input, and what of it is told."""

from __future__ import annotations

import itertools

import pytest

from edge_agent.domain.guard import guard_state
from edge_agent.domain.kleene import Tri
from edge_agent.wire.event import GuardChanged, GuardState, Observation, Quality
from tests.unit.edge.rig import DOOR, R01, R09, Layout, Rig, cell, ns

TRI: tuple[Tri, ...] = (False, None, True)
UNKNOWN, CLOSED, LOCKED, OPEN, BYPASSED, FAULT = (
    GuardState.UNKNOWN,
    GuardState.CLOSED,
    GuardState.CLOSED_LOCKED,
    GuardState.OPEN,
    GuardState.BYPASSED,
    GuardState.FAULT,
)


def expected(closed: Tri, bypass: Tri, locked: Tri, has_bypass: bool, is_discrepant: bool) -> GuardState:
    """The contract's order, written out again as a sentence per line."""
    if closed is None:
        return UNKNOWN  # whatever else is known
    if closed is False:
        return FAULT if is_discrepant else OPEN
    if is_discrepant:
        return FAULT  # latched: the channels agree again, the fault stays
    if has_bypass and bypass is True:
        return BYPASSED
    if has_bypass and bypass is None:
        return UNKNOWN
    return LOCKED if locked is True else CLOSED


def test_every_state_and_input_follows_the_contract() -> None:
    for closed, bypass, locked in itertools.product(TRI, TRI, TRI):
        for has_bypass, is_discrepant in itertools.product((False, True), (False, True)):
            wired = bypass if has_bypass else None
            result = guard_state(closed, wired, locked, is_discrepant=is_discrepant, has_bypass=has_bypass)
            assert result is expected(closed, wired, locked, has_bypass, is_discrepant)


def test_unknown_is_never_closed() -> None:
    for bypass, locked, discrepant in itertools.product(TRI, TRI, (False, True)):
        assert guard_state(None, bypass, locked, is_discrepant=discrepant, has_bypass=True) is UNKNOWN


def changes(rig: Rig) -> list[tuple[GuardState | None, GuardState, bool | None, bool | None, Quality]]:
    return [
        (item.was, item.state, item.bypass, item.locked, item.quality)
        for item in rig.bodies(GuardChanged)
        if item.guard == DOOR
    ]


def test_every_change_of_state_bypass_locked_or_quality_is_told_once() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.run(600, locked=1)
    rig.run(600, bypass=1)
    rig.run(600, bypass=0, locked=0, closed=0)
    rig.run(600, locked=1)
    good = Quality.GOOD
    assert changes(rig) == [
        (None, CLOSED, False, False, good),
        (CLOSED, LOCKED, False, True, good),
        (LOCKED, BYPASSED, True, True, good),
        (BYPASSED, OPEN, False, False, good),
        (OPEN, OPEN, False, True, good),
    ]


def test_what_is_not_wired_travels_as_null() -> None:
    rig = Rig(cell(Layout(door_signals=("ch_a",))))
    rig.run(200)
    assert changes(rig) == [(None, CLOSED, None, None, Quality.GOOD)]


def test_one_channel_that_is_open_is_enough() -> None:
    rig = Rig(cell())
    rig.run(200, ch_b=0)
    assert rig.door().state is OPEN


def test_a_held_discrepancy_is_a_fault_in_conflict_and_stays_a_fault_when_the_channels_agree() -> None:
    rig = Rig(cell(Layout(door_rules=(R09,))))
    rig.run(400)
    rig.run(1000, ch_b=0)
    assert (rig.door().state, rig.door().quality) == (FAULT, Quality.CONFLICT)
    rig.run(400, ch_b=1)
    assert (rig.door().state, rig.door().quality) == (FAULT, Quality.GOOD)


def test_since_is_when_the_state_began_and_outlives_changes_that_are_none_of_state() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.run(600, closed=0)
    rig.run(600, locked=1)
    assert rig.door().since == rig.wall().label(ns(600))
    assert rig.published[-1] == rig.door()


def test_a_wall_clock_that_jumps_changes_labels_and_nothing_else() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.utc_offset_ms = 3_600_000
    rig.engine.set_wall(rig.wall())
    rig.run(600, closed=0)
    assert rig.door().since == rig.wall().label(ns(600))
    assert [item[1] for item in changes(rig)] == [CLOSED, OPEN]


# Memory and gaps.


def test_after_a_restart_an_equal_first_state_says_nothing_and_keeps_since() -> None:
    rig = Rig(cell())
    rig.run(600)
    since = rig.door().since
    told = len(rig.drafts)
    rig.restart(epoch="01RUN0000B", down_ms=5000)
    rig.run(1000)
    assert rig.drafts[told:] == []
    assert rig.door().since == since


def test_after_a_restart_a_different_first_state_is_a_change_that_nobody_saw() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.restart(epoch="01RUN0000B", down_ms=5000)
    rig.run(400, closed=0)
    [seen] = rig.bodies(Observation)
    assert (seen.what, seen.detail) == (
        "changed_during_gap",
        {"machine": "mixer", "guard": "door", "was": "closed", "state": "open"},
    )
    assert changes(rig)[-1][:2] == (CLOSED, OPEN)


def test_half_a_picture_after_a_restart_is_not_told_as_a_change() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.restart(epoch="01RUN0000B")
    told = len(rig.drafts)
    block = rig.plan.blocks[0]
    rig.engine.receive_failure(block.id, "timeout", ns(rig.now_ms))
    rig.commit()
    assert rig.drafts[told:] == []
    assert rig.door().state is UNKNOWN


@pytest.mark.parametrize(("blind_ms", "told"), [(600, []), (8000, ["changed_during_gap"])])
def test_after_a_blind_gap_no_edge_is_inferred(blind_ms: int, told: list[str]) -> None:
    rig = Rig(cell(Layout(door_rules=(R01,))))
    rig.run(600)
    rig.dead = {"plc1"}
    rig.run(blind_ms)
    rig.dead = set()
    rig.run(400, closed=0)
    assert [item.what for item in rig.bodies(Observation)] == told


def test_what_a_frozen_controller_says_counts_as_a_gap_since_its_last_beat() -> None:
    rig = Rig(cell(Layout(heartbeat_stale_ms=5000)))
    rig.run(200)
    rig.run(600, heartbeat=1)
    rig.run(5400)
    assert rig.door().quality is Quality.FROZEN
    rig.run(600, heartbeat=2, closed=0)
    assert [item.what for item in rig.bodies(Observation)] == ["changed_during_gap"]


def test_a_gap_that_leaves_the_state_as_it_was_is_no_observation() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.dead = {"plc1"}
    rig.run(8000)
    rig.dead = set()
    rig.run(400)
    assert rig.bodies(Observation) == []
    assert [item[1] for item in changes(rig)] == [CLOSED, UNKNOWN, CLOSED]


def test_memory_that_cannot_be_read_counts_as_none() -> None:
    rig = Rig(cell(), memory={"guard/mixer/door": {"state": "??"}, "machine/mixer": 7, "device/plc1": []})
    rig.run(200)
    assert changes(rig) == [(None, CLOSED, False, False, Quality.GOOD)]
