"""MOVING over its sources: exhaustive truth, coasting, hysteresis, conflict."""

from __future__ import annotations

import itertools

import pytest

from edge_agent.domain.kleene import Tri, all_of, any_of, negated
from edge_agent.domain.motion import Motion
from edge_agent.domain.plan import Coding
from edge_agent.domain.quality import BlockState, Supply
from edge_agent.domain.signal import Signal
from edge_agent.wire.event import MachineChanged, Observation, Quality
from tests.unit.edge.rig import Layout, Rig, cell, ns

TRI: tuple[Tri, ...] = (False, None, True)


def test_kleene_and_is_the_minimum_or_the_maximum_and_not_the_mirror() -> None:
    order: dict[Tri, int] = {False: 0, None: 1, True: 2}
    for a, b in itertools.product(TRI, TRI):
        assert all_of((a, b)) is min((a, b), key=order.__getitem__)
        assert any_of((a, b)) is max((a, b), key=order.__getitem__)
        assert negated(a) is (None if a is None else not a)
    assert (all_of(()), any_of(())) == (True, False)


class Drive:
    """Motion with hand-set signals."""

    def __init__(self, *sources: str, rundown_ms: int | None = None, was_moving: bool = False) -> None:
        plan = cell(Layout(motion=sources))
        self.signals = {}
        for item in plan.signals:
            if item.name in sources:
                block = BlockState(plan.blocks[-1], ns(0), has_heartbeat=False)
                block.supply = Supply.GOOD
                self.signals[item.name] = Signal(item, block)
        self.motion = Motion(
            self.signals.get("running"),
            self.signals.get("speed"),
            self.signals.get("zero_speed"),
            rundown_ms,
            was_moving=was_moving,
        )

    def at(self, ms: float, **values: bool | float | None) -> Tri:
        for name, value in values.items():
            self.signals[name].value = value
        return self.motion.step(ns(ms))


@pytest.mark.parametrize(
    ("sources", "values", "moving"),
    [
        # running alone
        (["running"], [True], True),
        (["running"], [False], False),
        (["running"], [None], None),
        # a zero-speed monitor alone proves standstill
        (["zero_speed"], [True], False),
        (["zero_speed"], [False], True),
        (["zero_speed"], [None], None),
        # speed alone: |v| above 2 % of rated (100) is motion, either way round
        (["speed"], [2.0], False),
        (["speed"], [2.1], True),
        (["speed"], [-2.1], True),
        (["speed"], [None], None),
        # the dangerous answer wins, and one unknown is enough not to exclude motion
        (["running", "zero_speed"], [True, True], True),
        (["running", "zero_speed"], [True, None], True),
        (["running", "zero_speed"], [False, False], True),
        (["running", "zero_speed"], [False, True], False),
        (["running", "zero_speed"], [False, None], None),
        (["running", "zero_speed"], [None, True], None),
        (["running", "zero_speed"], [None, False], True),
        (["running", "zero_speed", "speed"], [False, True, 0.0], False),
        (["running", "zero_speed", "speed"], [False, True, None], None),
        (["running", "zero_speed", "speed"], [False, True, 50.0], True),
        # no source: nobody knows
        ([], [], None),
    ],
)
def test_motion_is_the_kleene_or_of_what_is_wired(
    sources: list[str], values: list[bool | float | None], moving: Tri
) -> None:
    assert Drive(*sources).at(0, **dict(zip(sources, values, strict=True))) is moving


def test_a_speed_at_the_edge_does_not_chatter() -> None:
    drive = Drive("speed")
    seen = [drive.at(0, speed=value) for value in (1.99, 2.01, 1.99, 1.97, 1.95, 1.99)]
    assert seen == [False, True, True, True, False, False]


def test_a_speed_without_rated_speed_moves_above_zero() -> None:
    drive = Drive("speed")
    plan = drive.signals["speed"].plan
    object.__setattr__(plan, "coding", Coding())
    assert [drive.at(0, speed=value) for value in (0, 1, 0)] == [False, True, False]


def test_a_machine_coasts_for_a_fifth_more_than_its_run_down_after_running_falls() -> None:
    drive = Drive("running", rundown_ms=10_000)
    assert drive.at(0, running=True) is True
    assert drive.at(1000, running=False) is True
    assert drive.motion.due() == ns(13_000)
    assert drive.at(12_999) is True
    assert drive.at(13_000) is False
    assert drive.motion.due() is None


def test_a_restart_of_the_drive_ends_the_coasting_and_its_next_fall_begins_it_anew() -> None:
    drive = Drive("running", rundown_ms=10_000)
    drive.at(0, running=True)
    drive.at(1000, running=False)
    drive.at(2000, running=True)
    assert drive.at(20_000, running=False) is True
    assert drive.at(31_999) is True
    assert drive.at(32_000) is False


def test_a_fall_inside_a_gap_infers_no_edge_but_motion_cannot_be_excluded() -> None:
    drive = Drive("running", rundown_ms=10_000)
    drive.at(0, running=True)
    assert drive.at(1000, running=None) is None
    assert drive.at(5000, running=False) is None
    assert drive.at(16_999) is None
    assert drive.at(17_000) is False


def test_a_gap_during_standstill_stays_standstill() -> None:
    drive = Drive("running", rundown_ms=10_000)
    drive.at(0, running=False)
    drive.at(1000, running=None)
    assert drive.at(2000, running=False) is False


@pytest.mark.parametrize(("was_moving", "moving"), [(False, False), (True, None)])
def test_the_first_look_after_a_restart_excludes_motion_only_if_it_was_not_last_moving(
    was_moving: bool, moving: Tri
) -> None:
    assert Drive("running", rundown_ms=10_000, was_moving=was_moving).at(0, running=False) is moving


@pytest.mark.parametrize(
    ("sources", "rundown_ms"), [(["running"], None), (["running", "zero_speed"], 10_000)]
)
def test_there_is_no_coasting_without_a_run_down_time_or_beside_a_zero_speed_monitor(
    sources: list[str], rundown_ms: int | None
) -> None:
    drive = Drive(*sources, rundown_ms=rundown_ms)
    standing = {"zero_speed": True} if "zero_speed" in sources else {}
    drive.at(0, running=True, **standing)
    assert drive.at(1000, running=False) is False


def test_sources_that_contradict_each_other_for_more_than_three_seconds_are_a_conflict_and_still_motion() -> (
    None
):
    drive = Drive("running", "zero_speed")
    assert drive.at(0, running=True, zero_speed=True) is True
    assert (drive.motion.due(), drive.motion.is_conflicting) == (ns(3000), False)
    assert drive.at(3000) is True
    assert drive.motion.is_conflicting
    drive.at(3100, zero_speed=False)
    assert not drive.motion.is_conflicting


# In the engine.


def test_a_speed_beside_a_proven_standstill_is_a_conflict_and_still_motion() -> None:
    drive = Drive("speed", "zero_speed")
    assert drive.at(0, speed=50, zero_speed=True) is True
    assert (drive.motion.due(), drive.motion.is_conflicting) == (ns(3000), False)
    assert drive.at(3000) is True
    assert drive.motion.is_conflicting
    assert drive.at(3200, speed=0) is False
    assert not drive.motion.is_conflicting


def test_a_drive_that_runs_while_nothing_turns_is_no_conflict() -> None:
    drive = Drive("running", "speed", "zero_speed")
    assert drive.at(0, running=True, speed=0, zero_speed=False) is True
    drive.at(10_000)
    assert not drive.motion.is_conflicting


def test_a_conflict_is_shown_as_quality_and_journaled_once() -> None:
    rig = Rig(cell(Layout(motion=("running", "zero_speed"))))
    rig.run(6000, running=1, zero_speed=1)
    [machine] = rig.engine.machine_views()
    assert (machine.moving, machine.quality) == (True, Quality.CONFLICT)
    assert [item.what for item in rig.bodies(Observation)] == ["source_conflict"]


def test_a_machine_change_is_told_once_with_its_mode_and_what_moved_before() -> None:
    rig = Rig(cell())
    rig.run(600)
    rig.run(600, running=1)
    rig.run(600, mode=1)
    assert rig.bodies(MachineChanged) == [
        MachineChanged("mixer", False, "auto", None),
        MachineChanged("mixer", True, "auto", False),
        MachineChanged("mixer", True, "setup", True),
    ]


def test_a_machine_last_moving_is_remembered_through_an_unknown_end() -> None:
    rig = Rig(cell(Layout(rundown_ms=10_000)))
    rig.run(1000, running=1)
    rig.dead = {"drive"}
    rig.run(4000)
    rig.dead = set()
    rig.plant.running = 0
    rig.restart(epoch="01RUN0000B", down_ms=60_000)
    rig.run(200)
    assert rig.engine.machine_views()[0].moving is None
    rig.run(12_000)
    assert rig.engine.machine_views()[0].moving is False
