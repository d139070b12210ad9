"""The engine as a whole: the hot path, time, restarts at every point, reports, determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.findings import DeviceView, RecordEvents
from edge_agent.domain.plan import CellPlan
from edge_agent.domain.report import PART_MAX_BYTES
from edge_agent.domain.units import BlockId, GuardId, MachineId
from edge_agent.domain.wall import parse_rfc3339, rfc3339
from edge_agent.wire.chain import canonical
from edge_agent.wire.codec import Stamp, body_document, seal
from edge_agent.wire.event import (
    ClockState,
    GuardState,
    StateReport,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from tests.unit.edge.rig import DOOR, MIXER, R01, Layout, Rig, cell, ns

ROOT = Path(__file__).resolve().parents[3]


def test_a_door_opened_while_running_is_raised_after_t_allow_and_cleared_after_off_delay() -> None:
    rig = Rig(cell())
    rig.run(1000, running=1)
    rig.run(3000, closed=0)
    rig.run(4000, closed=1)
    assert rig.story("guard_open_motion") == ["2000 +P1", "6000 -returned_to_normal"]


# The hot path and time.


def test_equal_bytes_with_nobody_waiting_change_nothing_but_the_age() -> None:
    rig = Rig(cell())
    rig.run(400)
    block = rig.plan.blocks[0]
    data = rig.plant.block(block)
    rig.engine.receive_block(block.id, data, ns(500), ns(500))
    assert rig.engine.take_effects() == []
    rig.engine.handle_timer(ns(2499))
    assert rig.door().state is GuardState.CLOSED
    rig.engine.handle_timer(ns(2500))
    assert rig.door().state is GuardState.UNKNOWN


def test_a_block_is_quiet_only_while_no_rule_counts_its_samples() -> None:
    rig = Rig(cell(Layout(door_rules=(R01,), door_signals=("ch_a",), estop=False)))
    state = rig.engine._blocks[0]
    rig.run(400, running=1)
    assert state.quiet
    rig.run(200, ch_a=0)
    assert not state.quiet  # HELD counts
    rig.run(2000)
    assert state.quiet  # raised: the next sample can say nothing new
    rig.run(200, ch_a=1)
    assert not state.quiet  # clearing counts
    rig.run(3000)
    assert state.quiet


def test_deadlines_run_at_their_own_time_however_late_the_timer_fires() -> None:
    rig = Rig(cell())
    rig.run(200)
    rig.wait(100_000)
    lost = [draft for draft in rig.drafts if type(draft.body).__name__ == "DeviceLost"]
    raised = [draft for draft in rig.drafts if isinstance(draft.body, ViolationRaised)]
    assert [draft.observed for draft in lost] == [ns(2000), ns(2000)]
    assert [draft.observed for draft in raised] == [ns(12_000), ns(12_000)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=30))
def test_extra_timer_calls_at_any_time_make_no_difference(extra: list[int]) -> None:
    plain = told(lambda rig, _: None)
    times = sorted(extra)

    def nudge(rig: Rig, now_ms: float) -> None:
        while times and times[0] <= now_ms:
            rig.engine.handle_timer(ns(times.pop(0)))

    assert told(nudge) == plain


def test_stepping_exactly_at_each_next_deadline_makes_no_difference() -> None:
    def step(rig: Rig, now_ms: float) -> None:
        while (due := rig.engine.next_deadline()) is not None and due <= ns(now_ms):
            rig.engine.handle_timer(due)

    assert told(step) == told(lambda rig, _: None)


def test_time_that_runs_back_is_taken_for_the_latest_seen() -> None:
    rig = Rig(cell())
    rig.run(2000)
    rig.engine.handle_timer(ns(100))
    rig.engine.receive_failure(BlockId(0), "timeout", ns(100))
    rig.commit()
    assert all(a.observed <= b.observed for a, b in zip(rig.drafts, rig.drafts[1:], strict=False))


# A scenario with everything in it, for restarts and determinism.

STEPS: tuple[tuple[float, dict[str, int], frozenset[str]], ...] = (
    (2000, {"running": 1}, frozenset()),
    (3000, {"closed": 0}, frozenset()),  # R01
    (3000, {"closed": 1, "bypass": 1}, frozenset()),  # R17 P1, R01 clears
    (2000, {"estop": 0}, frozenset()),  # R22
    (2000, {"ch_b": 0}, frozenset()),  # R09
    (14_000, {}, frozenset({"drive"})),  # R29 of the drive, with occurrences open
    (8000, {"ch_b": 1, "bypass": 0}, frozenset()),
    (14_000, {"running": 1}, frozenset({"plc1"})),  # R29 of the controller, U-raise hidden
    (2000, {"closed": 0, "running": 0}, frozenset()),
    (2000, {"closed": 1, "estop": 1}, frozenset()),
)
SETTLING_MS = 45_000


def play(rig: Rig, between: Callable[[Rig, float], None]) -> Rig:
    for ms, values, dead in STEPS:
        rig.set(**values)
        rig.dead = set(dead)
        end = rig.now_ms + ms
        while rig.now_ms < end:
            between(rig, rig.now_ms)
            rig.poll()
            rig.now_ms += 200
    return rig


def told(between: Callable[[Rig, float], None]) -> list[tuple[int, dict[str, object]]]:
    rig = play(Rig(cell()), between)
    return [(draft.observed, dict(body_document(draft.body))) for draft in rig.drafts]


def test_the_scenario_has_every_rule_in_it() -> None:
    rig = play(Rig(cell()), lambda rig, _: None)
    assert sorted({item.rule for item in rig.bodies(ViolationRaised)}) == [
        "bypass_active",
        "channel_discrepancy",
        "estop",
        "guard_open_motion",
        "monitoring_lost",
    ]


POINTS = [
    sum(step[0] for step in STEPS[:index]) + offset for index in range(len(STEPS)) for offset in (0, 1000)
]


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
@pytest.mark.parametrize("point", POINTS)
def test_an_engine_rebuilt_at_any_point_ends_with_the_same_open_set(point: float, boot: str) -> None:
    def kill(rig: Rig, now_ms: float) -> None:
        if now_ms == point:
            rig.restart(epoch="01RUN0000B", boot=boot)

    unbroken, broken = play(Rig(cell()), lambda rig, _: None), play(Rig(cell()), kill)
    for rig in (unbroken, broken):
        rig.run(SETTLING_MS)
    assert broken.open_rules() == unbroken.open_rules()
    assert broken.door() == replace(unbroken.door(), since=broken.door().since)


@pytest.mark.parametrize("point", POINTS)
def test_every_occurrence_is_raised_once_and_cleared_at_most_once_over_a_kill(point: float) -> None:
    def kill(rig: Rig, now_ms: float) -> None:
        if now_ms == point:
            rig.restart(epoch="01RUN0000B")

    rig = play(Rig(cell()), kill)
    rig.run(SETTLING_MS)
    raised = [item.occurrence for item in rig.bodies(ViolationRaised)]
    cleared = [item.occurrence for item in rig.bodies(ViolationCleared)]
    assert len(raised) == len(set(raised))
    assert len(cleared) == len(set(cleared))
    assert set(cleared) <= set(raised)
    listed = [key for key in rig.memory if key.startswith("open/")]
    assert len(listed) == len(raised) - len(cleared)


def test_effects_are_the_same_in_processes_with_different_hash_seeds() -> None:
    program = "from tests.unit.edge.test_engine import told; print(told(lambda rig, now: None))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


def test_every_event_of_the_scenario_can_be_sealed() -> None:
    """No floats, no integers out of bounds, no payload above the limit."""
    rig = play(Rig(cell()), lambda rig, _: None)
    for draft in rig.drafts:
        seal(
            Stamp(
                "site",
                "gw",
                "01RUN0000A",
                1,
                "boot",
                0,
                "2026-11-22T00:00:00.000000Z",
                ClockState.SYNCED,
                "0" * 64,
            ),
            draft.body,
        )


# Going on after a restart.


def open_door(rig: Rig) -> ViolationRaised:
    rig.run(1000, running=1)
    rig.run(3000, closed=0)
    [raised] = rig.bodies(ViolationRaised)
    return raised


def test_an_open_occurrence_goes_on_with_its_id_since_and_duration_in_the_same_boot() -> None:
    rig = Rig(cell(Layout(door_rules=(R01,))))
    raised = open_door(rig)
    rig.restart(epoch="01RUN0000B", down_ms=10_000)
    rig.run(2000)
    rig.run(4000, closed=1)
    [cleared] = rig.bodies(ViolationCleared)
    assert (cleared.occurrence, cleared.since) == (raised.occurrence, raised.since)
    # Open from 1000; killed with the memory of 2000 (the raise) at 4000; seen again 14 000 to 18 000.
    assert (cleared.duration_max_ms, cleared.duration_min_ms) == (17_000, 5000)


def test_in_another_boot_the_longest_duration_is_read_off_the_wall() -> None:
    rig = Rig(cell(Layout(door_rules=(R01,))))
    open_door(rig)
    rig.utc_offset_ms = rig.now_ms + 60_000  # a minute later on the wall, the monotonic clock starts again
    rig.now_ms = 0
    rig.restart(epoch="01RUN0000B", boot="boot-2")
    rig.run(2000)
    rig.run(4000, closed=1)
    [cleared] = rig.bodies(ViolationCleared)
    assert (cleared.duration_max_ms, cleared.duration_min_ms) == (3000 + 60_000 + 4000, 5000)


def test_a_restart_never_clears_or_raises_by_itself() -> None:
    rig = Rig(cell())
    open_door(rig)
    before = len(rig.drafts)
    rig.restart(epoch="01RUN0000B", down_ms=10_000)
    assert rig.drafts[before:] == []
    assert "guard_open_motion:P1:proven" in rig.open_rules()


def test_the_known_duration_is_refreshed_every_minute_so_that_a_kill_loses_at_most_that() -> None:
    rig = Rig(cell(Layout(door_rules=(R01,))))
    open_door(rig)
    rig.run(600_000)
    rig.restart(epoch="01RUN0000B")
    rig.run(4000, closed=1)
    [cleared] = rig.bodies(ViolationCleared)
    assert cleared.duration_max_ms - cleared.duration_min_ms <= 60_000


def test_an_occurrence_whose_rule_guard_or_device_left_the_configuration_is_cleared_as_removed() -> None:
    rig = Rig(cell())
    open_door(rig)
    rig.plan = cell(Layout(door_rules=()))
    rig.restart(epoch="01RUN0000B")
    [cleared] = rig.bodies(ViolationCleared)
    assert (cleared.reason, cleared.rule) == ("removed", "guard_open_motion")
    assert not [key for key in rig.memory if key.startswith("open/")]


def test_memory_of_what_left_the_configuration_is_forgotten_and_foreign_memory_is_left_alone() -> None:
    rig = Rig(cell(), memory={"guard/gone/door": None, "machine/gone": {}, "outbox/acked": 7, "open/x": "?"})
    assert rig.memory == {"outbox/acked": 7}


def test_a_child_whose_hiding_parent_left_the_configuration_is_unhidden() -> None:
    rig = Rig(cell(Layout(door_rules=(R01,))))
    rig.run(1000, running=1)
    rig.dead = {"plc1"}
    rig.run(20_000)
    rig.plan = cell(Layout(door_rules=(R01,), device_rules=()))
    rig.restart(epoch="01RUN0000B")
    [changed] = rig.bodies(ViolationChanged)
    assert (changed.reason, changed.hidden_by) == ("parent_cleared", None)


def test_occurrences_after_an_epoch_fork_carry_the_new_epoch() -> None:
    rig = Rig(cell())
    first = open_door(rig)
    rig.engine.begin_epoch("01RUN0000F")
    rig.run(200, estop=0)
    second = rig.bodies(ViolationRaised)[-1]
    assert (first.occurrence, second.occurrence) == ("01RUN0000A-1", "01RUN0000F-2")


# What it hands over.


def test_one_step_is_one_commit_and_the_states_to_publish_come_after_it() -> None:
    rig = Rig(cell())
    for block in rig.plan.blocks:
        rig.engine.receive_block(block.id, rig.plant.block(block), ns(0), ns(0))
    effects = rig.engine.take_effects()
    assert isinstance(effects[0], RecordEvents)
    assert [type(effect).__name__ for effect in effects[1:]] == ["PublishState", "PublishState"]
    assert rig.engine.take_effects() == []


def test_devices_are_shown_with_their_oldest_age() -> None:
    rig = Rig(cell())
    devices = list(rig.plan.devices)
    assert devices == ["plc1", "drive"]
    for device in devices:
        assert rig.engine.device_view(device, ns(50)) == DeviceView(device, up=False, age_ms=None)
    rig.poll()
    for device in devices:
        assert rig.engine.device_view(device, ns(50)) == DeviceView(device, up=True, age_ms=50)


def test_a_report_is_complete_and_lists_what_is_open() -> None:
    rig = Rig(cell())
    open_door(rig)
    [report] = rig.engine.state_report(ns(rig.now_ms))
    assert (report.part, report.parts) == (1, 1)
    assert report.guards == {"mixer": {"door": "o00g", "estop": "c--g"}}
    assert report.machines == {"mixer": (True, "auto")}
    assert [(item.rule, item.priority, item.basis) for item in report.open] == [
        ("guard_open_motion", "P1", "proven")
    ]


def many(count: int) -> CellPlan:
    """A cell whose one machine has `count` doors on the same two channels."""
    plan = cell(Layout(door_rules=(R01,), estop=False))
    mixer = plan.machines[MIXER]
    [door] = mixer.guards
    doors = tuple(
        replace(door, id=GuardId(f"a-door-with-quite-a-long-name-{index:04}")) for index in range(count)
    )
    return replace(plan, machines={MachineId("mixer"): replace(mixer, guards=doors)})


def test_a_large_report_comes_in_parts_within_the_limit_that_hold_everything_once() -> None:
    rig = Rig(many(1500))
    rig.run(1000, running=1)
    rig.run(2000, closed=0)
    parts = rig.engine.state_report(ns(rig.now_ms))
    assert len(parts) > 5
    assert [(part.part, part.parts) for part in parts] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    assert max(len(canonical(body_document(part))) for part in parts) <= PART_MAX_BYTES
    assert sum(len(doors) for part in parts for doors in part.guards.values()) == 1500
    assert len({item.occurrence for part in parts for item in part.open}) == 1500
    assert all(isinstance(part, StateReport) for part in parts)


def test_lists_of_blinded_guards_stop_at_two_hundred_with_their_count() -> None:
    rig = Rig(many(1500))
    rig.run(1000)
    rig.dead = {"plc1"}
    rig.run(20_000)
    [raised] = [item for item in rig.bodies(ViolationRaised) if item.rule == "monitoring_lost"]
    guards = raised.evidence["guards"]
    assert isinstance(guards, list)
    assert (len(guards), raised.evidence["guards_count"]) == (200, 1500)


def test_an_unknown_guard_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        Rig(cell()).engine.guard_view(MIXER, GuardId("window"))
    assert Rig(cell()).engine.guard_view(MIXER, DOOR).state is GuardState.UNKNOWN


# Labels.


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_labels_are_rfc_3339_with_microseconds_and_come_back(utc: int) -> None:
    text = rfc3339(utc)  # type: ignore[arg-type]
    assert text.endswith("Z")
    assert len(text) == len("2026-11-22T15:08:00.000001Z")
    assert parse_rfc3339(text) == utc // 1000 * 1000
