"""R01: its truth table row by row, an independent oracle, and what happens to an open occurrence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.domain.plan import Table
from edge_agent.domain.units import NS_PER_MS
from edge_agent.wire.event import (
    GuardChanged,
    GuardState,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from tests.unit.edge.rig import PLC, R01, R29, Layout, Rig, cell, ns

ONLY_R01 = Layout(door_rules=(R01,), device_rules=(), door_signals=("ch_a",), estop=False, mode=False)
R01_AND_R29 = Layout(door_rules=(R01,), device_rules=(R29,), door_signals=("ch_a",), estop=False, mode=False)


def story(layout: Layout = ONLY_R01) -> Rig:
    return Rig(cell(layout))


def lay(rig: Rig, closed: bool | None, moving: bool | None) -> None:
    """Bring guard and motion into this state; unknown is a device that does not answer."""
    rig.dead = {name for name, value in (("plc1", closed), ("drive", moving)) if value is None}
    rig.plant.ch_a = int(bool(closed))
    rig.plant.running = int(bool(moving))


# (closed, moving): what 30 s of it, after a good minute of a closed and standing machine, tell, in ms from its start.
# A source that stops answering is unknown 1800 ms after that (its last good request lies one poll back).
ROWS = [
    (False, True, ["1000 +P1"]),  # open and moving: T, held for T_allow
    (False, None, ["6800 +P2?"]),  # open, motion cannot be excluded: U-raise 5 s after it became unknown
    (False, False, []),  # open, standing: allowed
    (None, True, ["11800 +P2?"]),  # moving, guard not seen: U-raise 10 s after it became unknown
    (None, None, []),  # nothing known: R29 only
    (None, False, []),  # standing, guard not seen: F
    (True, True, []),  # closed: F, whatever moves
    (True, None, []),
    (True, False, []),
]


@pytest.mark.parametrize(("closed", "moving", "told"), ROWS)
def test_each_row_of_the_truth_table(closed: bool | None, moving: bool | None, told: list[str]) -> None:
    rig = story()
    rig.run(60_000)
    lay(rig, closed, moving)
    rig.run(30_000)
    shifted = [
        f"{int(line.split()[0]) - 60_000} {line.split()[1]}" for line in rig.story("guard_open_motion")
    ]
    assert shifted == told


@pytest.mark.parametrize(("closed", "moving", "told"), ROWS)
def test_an_open_occurrence_clears_only_on_a_row_that_is_false(
    closed: bool | None, moving: bool | None, told: list[str]
) -> None:
    """G3 and G4: true and unknown keep it, false clears it."""
    rig = story()
    rig.run(2000, ch_a=0, running=1)
    lay(rig, closed, moving)
    rig.run(30_000)
    is_false = closed is True or moving is False
    assert len(rig.bodies(ViolationCleared)) == int(is_false)
    assert len(rig.bodies(ViolationRaised)) == 1


def test_a_true_result_in_between_starts_the_clock_of_unknown_anew() -> None:
    rig = story()
    rig.run(1000, ch_a=0)
    rig.dead = {"drive"}
    rig.run(5000)
    # Motion is unknown from 2800 to 6000; then it is true beside a guard that ages, which is unknown from 7800.
    rig.dead = {"plc1"}
    rig.plant.running = 1
    rig.run(20_000)
    assert rig.story("guard_open_motion")[0] == "17800 +P2?"


def test_a_raise_on_unknown_becomes_proven() -> None:
    rig = story()
    rig.run(1000, ch_a=0)
    rig.dead = {"drive"}
    rig.run(9000)
    rig.dead = set()
    rig.run(3000, running=1)
    assert rig.story("guard_open_motion") == ["7800 +P2?", "11000 >P1 proven"]
    [changed] = rig.bodies(ViolationChanged)
    assert (changed.was, changed.basis.value, changed.hidden_by) == ("P2", "proven", None)
    assert changed.evidence["held_min_ms"] == 1000


def test_a_raise_on_unknown_while_its_device_is_lost_is_hidden_by_r29_raised_first() -> None:
    rig = story(R01_AND_R29)
    rig.run(1000, running=1)
    rig.dead = {"plc1"}
    rig.run(20_000)
    parent, child = rig.bodies(ViolationRaised)
    assert (parent.rule, child.rule) == ("monitoring_lost", "guard_open_motion")
    assert child.hidden_by == parent.occurrence


def test_a_device_whose_lost_monitoring_does_not_blind_the_inputs_hides_nothing() -> None:
    """The controller is alarmed for its mode word alone; what is unknown to R01 is the drive's."""
    rig = story(replace(R01_AND_R29, mode=True))
    rig.run(12_000, ch_a=0, mode=9)
    rig.dead = {"drive"}
    rig.run(8000)
    lost, raised = rig.bodies(ViolationRaised)
    assert (lost.device, raised.rule, raised.hidden_by) == ("plc1", "guard_open_motion", None)


def test_a_raise_on_unknown_begins_when_it_became_unknown() -> None:
    rig = story()
    rig.run(1000, ch_a=0)
    rig.dead = {"drive"}
    rig.run(8000)
    [raised] = rig.bodies(ViolationRaised)
    assert raised.since == rig.wall().label(ns(2800))
    assert (raised.evidence["held_min_ms"], raised.evidence["held_max_ms"]) == (0, 5000)


def test_time_at_a_frozen_controller_is_not_known_time() -> None:
    rig = story(replace(ONLY_R01, heartbeat_stale_ms=3000))
    rig.run(400, running=1)
    rig.run(600, heartbeat=1)
    rig.run(2000, ch_a=0, heartbeat=2)
    rig.run(8000)
    rig.run(4000, ch_a=1, heartbeat=3)
    [cleared] = rig.bodies(ViolationCleared)
    # Open from 1000, when the counter moved last; held for a second; seen again, closed, from 11 200 to 13 200.
    assert (cleared.duration_min_ms, cleared.duration_max_ms) == (3000, 12_200)


def test_a_hidden_occurrence_is_unhidden_when_it_is_proven() -> None:
    rig = story(R01_AND_R29)
    rig.run(1000, running=1)
    rig.dead = {"plc1"}
    rig.run(20_000)
    rig.dead = set()
    rig.run(2000, ch_a=0)
    assert rig.story("guard_open_motion")[-1].endswith(">P1 proven")
    assert rig.bodies(ViolationChanged)[-1].hidden_by is None


def test_a_hidden_occurrence_is_unhidden_when_its_parent_is_over() -> None:
    """The guard answers again, open; motion goes unknown before the parent is cleared."""
    rig = story(R01_AND_R29)
    rig.run(1000, running=1)
    rig.dead = {"plc1"}
    rig.run(20_000)
    rig.dead = {"drive"}
    rig.plant.ch_a = 0
    rig.run(40_000)
    changes = [line.split(" ", 1)[1] for line in rig.story("guard_open_motion")]
    assert changes == ["+P2?", ">P2 parent_cleared"]


def test_durations_are_equal_when_nothing_was_unknown() -> None:
    rig = story()
    rig.run(1000, running=1)
    rig.run(5000, ch_a=0)
    rig.run(4000, ch_a=1)
    [cleared] = rig.bodies(ViolationCleared)
    assert (cleared.duration_ms, cleared.duration_min_ms, cleared.duration_max_ms) == (7000, 7000, 7000)
    assert cleared.since == rig.bodies(ViolationRaised)[0].since


def test_durations_differ_by_what_was_unknown() -> None:
    rig = story()
    rig.run(1000, running=1)
    rig.run(5000, ch_a=0)
    rig.dead = {"drive"}
    rig.run(10_000)
    rig.dead = set()
    rig.run(4000, ch_a=1)
    [cleared] = rig.bodies(ViolationCleared)
    # Known from 1000 until the drive's last good request at 5800, and again from 16 000 to 18 000.
    assert (cleared.duration_min_ms, cleared.duration_max_ms) == (6800, 17_000)


def test_lost_replies_that_never_made_anything_unknown_leave_the_durations_equal() -> None:
    rig = story()
    rig.run(1000, running=1)
    rig.set(ch_a=0)
    for step in range(30):
        rig.poll(fail=["drive"] if step % 4 == 3 else [])
        rig.now_ms += 200
    rig.run(4000, ch_a=1)
    [cleared] = rig.bodies(ViolationCleared)
    assert cleared.duration_min_ms == cleared.duration_max_ms


def test_a_dead_second_source_of_motion_does_not_silence_what_the_first_proves() -> None:
    """`running` and the door answer from the controller; only the speed is on the drive, which is dead."""
    plan = cell(
        Layout(door_rules=(R01,), device_rules=(), door_signals=("ch_a",), motion=("running", "speed"))
    )
    [running] = [item for item in plan.signals if item.name == "running"]
    [bits_block, words_block, drive_block] = plan.blocks
    moved = replace(running, device=PLC, table=Table.DISCRETE_INPUT, number=5, bit=None)
    plan = replace(
        plan,
        signals=tuple(moved if item is running else item for item in plan.signals),
        blocks=(
            replace(bits_block, signals=(*bits_block.signals, running.id)),
            words_block,
            replace(drive_block, signals=tuple(item for item in drive_block.signals if item != running.id)),
        ),
    )
    rig = Rig(plan)
    rig.dead = {"drive"}
    rig.run(10_000, permit=1)
    rig.run(2000, ch_a=0)
    assert rig.story("guard_open_motion") == ["11000 +P1"]


def test_evidence_shows_what_was_judged() -> None:
    rig = story()
    rig.run(1000, running=1)
    rig.run(2000, ch_a=0)
    [raised] = rig.bodies(ViolationRaised)
    evidence = raised.evidence
    assert evidence["signals"] == {"mixer/door/ch_a": False, "mixer/running": True}
    assert evidence["registers"] == {"plc1/di/0": "12", "drive/ir/0": "000100010000"}
    assert evidence["ages_ms"] == {"plc1/di/0": 0, "drive/ir/0": 200}
    assert (evidence["grade"], evidence["held_min_ms"], evidence["held_max_ms"]) == ("C", 1000, 1000)
    params = evidence["params"]
    assert isinstance(params, dict)
    assert params["on_delay_ms"] == 1000


def test_a_rule_without_a_delay_for_unknown_never_raises_on_unknown() -> None:
    rig = story(replace(ONLY_R01, door_rules=(replace(R01, unknown_delay_ms=None),)))
    rig.run(1000)
    lay(rig, closed=False, moving=None)
    rig.run(30_000)
    assert rig.story("guard_open_motion") == []


# An independent oracle: no engine code, the whole history, the rule read from its table.

POLL = 250


@dataclass
class Look:
    """One poll: what each device said, or None for a failed read."""

    closed: bool | None
    moving: bool | None


@dataclass
class Oracle:
    """What R01 tells over polls every 250 ms; at one instant the guard's device is read before the drive."""

    told: list[str] = field(default_factory=list)
    value: dict[str, bool | None] = field(default_factory=lambda: {"closed": None, "moving": None})
    asked: dict[str, int] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    true_at: int | None = None  # the last true sample
    held: int = 0  # proven true time
    hole: bool = False  # something was missed since the last true sample
    row_since: int | None = None
    false_since: int | None = None
    active: str = ""

    def watch(self, looks: list[Look]) -> list[str]:
        for step, look in enumerate(looks):
            now = step * POLL
            self.pass_time(now)
            for name, seen in (("closed", look.closed), ("moving", look.moving)):
                if seen is None:
                    self.failing.add(name)
                    self.hole |= self.value[name] is not None
                else:
                    self.failing.discard(name)
                    self.value[name], self.asked[name] = seen, now
                    self.judge(now, sampled=True)
        return self.told

    def pass_time(self, until: int) -> None:
        """Stop at every moment at which something happens by itself."""
        while True:
            alarms = [self.asked[name] + 2000 for name, seen in self.value.items() if seen is not None]
            delay = self.raising_delay()
            if self.row_since is not None and not self.active and delay is not None:
                alarms.append(self.row_since + delay)
            now = min(alarms, default=until + 1)
            if now > until:
                return
            for name, seen in list(self.value.items()):
                if seen is not None and self.asked[name] + 2000 <= now:
                    self.value[name] = None
            self.judge(now, sampled=False)

    def result(self) -> bool | None:
        if self.value["closed"] is True or self.value["moving"] is False:
            return False
        return None if None in self.value.values() else True

    def raising_delay(self) -> int | None:
        return {(False, None): 5000, (None, True): 10_000}.get((self.value["closed"], self.value["moving"]))

    def judge(self, now: int, *, sampled: bool) -> None:
        result, delay = self.result(), self.raising_delay()
        if result is None:
            self.hole = True
        if delay is None:
            self.row_since = None
        elif self.row_since is None:
            self.row_since = now
        proven = self.add_up(result, now) if sampled or result is False else False
        if proven and self.active != "P1":
            self.tell(now, ">P1 proven" if self.active else "+P1", "P1")
        elif not self.active and self.row_since is not None and now >= self.row_since + (delay or 0):
            self.tell(now, "+P2?", "P2?")
        self.run_out(result, now, sampled=sampled)

    def add_up(self, result: bool | None, now: int) -> bool:
        """HELD over T_allow = 1000 ms with a hold gap of 10 s."""
        if result is False:
            self.true_at, self.held = None, 0
        if result is not True:
            return False
        if self.true_at is not None and not self.hole:
            self.held += now - self.true_at
        elif self.true_at is not None and now - self.true_at > 10_000:
            self.held = 0
        self.true_at, self.hole = now, any(self.value[name] is not None for name in sorted(self.failing))
        return self.held >= 1000

    def run_out(self, result: bool | None, now: int, *, sampled: bool) -> None:
        if result is not False:
            self.false_since = None
        elif sampled:
            self.false_since = now if self.false_since is None else self.false_since
            if self.active and now - self.false_since >= 2000:
                self.tell(now, "-returned_to_normal", "")

    def tell(self, now: int, text: str, active: str) -> None:
        self.told.append(f"{now} {text}")
        self.active = active


LOOKS = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.builds(Look, st.sampled_from([True, False, None]), st.sampled_from([True, False, None])),
    ),
    max_size=10,
)


@settings(max_examples=400, deadline=None)
@given(LOOKS)
def test_the_engine_agrees_with_an_independent_reading_of_the_rule(runs: list[tuple[int, Look]]) -> None:
    looks = [look for count, look in runs for _ in range(count)]
    rig = story()
    for step, look in enumerate(looks):
        rig.now_ms = step * POLL
        rig.set(ch_a=int(bool(look.closed)), running=int(bool(look.moving)))
        rig.poll(
            fail=[name for name, seen in (("plc1", look.closed), ("drive", look.moving)) if seen is None]
        )
    assert rig.story("guard_open_motion") == Oracle().watch(looks)


@settings(max_examples=200, deadline=None)
@given(LOOKS)
def test_no_guard_is_ever_told_closed_on_stale_data(runs: list[tuple[int, Look]]) -> None:
    looks = [look for count, look in runs for _ in range(count)]
    rig = story()
    last_good = None
    for step, look in enumerate(looks):
        rig.now_ms = step * POLL
        rig.set(ch_a=int(bool(look.closed)), running=int(bool(look.moving)))
        rig.poll(
            fail=[name for name, seen in (("plc1", look.closed), ("drive", look.moving)) if seen is None]
        )
        last_good = rig.now_ms if look.closed is not None else last_good
        if last_good is None or rig.now_ms - last_good >= 2000:
            assert rig.door().state is GuardState.UNKNOWN
        else:
            assert rig.door().state is not GuardState.UNKNOWN
    for draft in rig.drafts:
        if isinstance(draft.body, GuardChanged) and draft.body.state is GuardState.CLOSED:
            look = looks[draft.observed // NS_PER_MS // POLL]
            assert look.closed is True
