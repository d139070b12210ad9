"""The physics of the cell: what must hold whatever people do, and the stories each rule is made for."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.acts import FIELDS, Act, Verb
from simulators.cell import Cell
from simulators.machine import BOUNCE_MS_MAX, UNLOCK_DELAY_MS
from simulators.plant import (
    DEVICES,
    DI_LOCK_CMD,
    DI_LOCKED,
    DI_RUN_FB,
    DI_SAFETY_OUT,
    DI_ZERO_SPEED,
    DOOR_BOUNCE_MAX,
    DOOR_SKEW_MS_MAX,
    GUARDS,
    HR_HEARTBEAT,
    HR_MODE,
    HR_RESET_COUNT,
    IR_BELT_SPEED,
    IR_SPEED,
    MACHINES,
    GuardKind,
    Mode,
)
from simulators.truth import Fact

MIXER = "mixer-18"


def do(cell: Cell, verb: Verb, guard: str = "", **rest: object) -> str | None:
    """Do something to the mixer."""
    return cell.act(Act(verb, machine=MIXER, guard=guard, **rest))  # type: ignore[arg-type]


def bits(cell: Cell) -> tuple[bool, ...]:
    return cell.image("plc-mixer").discrete_inputs


def running_mixer(seed: int = 1) -> Cell:
    """A cell whose mixer turns at full speed."""
    cell = Cell(seed)
    do(cell, Verb.START)
    cell.advance(5_000)
    assert cell.truth().machines[MIXER].speed_rpm == 24.0
    return cell


def advance_by(cell: Cell, ms: int) -> None:
    cell.advance(cell.now_ms + ms)


def test_at_rest_everything_is_closed_healthy_and_still() -> None:
    cell = Cell(1)
    assert cell.truth().machines[MIXER].moving is False
    assert bits(cell)[:8] == (True, True, True, True, False, True, True, True)
    assert bits(cell)[DI_LOCKED]


def test_a_start_runs_the_mixer_and_registers_say_so() -> None:
    cell = running_mixer()
    assert bits(cell)[DI_RUN_FB]
    assert not bits(cell)[DI_ZERO_SPEED]
    assert cell.image("plc-mixer").input_registers[IR_SPEED] == 240


def test_a_stopped_mixer_coasts_for_twelve_seconds_before_it_stands() -> None:
    cell = running_mixer()
    do(cell, Verb.STOP)
    advance_by(cell, 11_900)
    assert cell.truth().machines[MIXER].moving
    assert not bits(cell)[DI_RUN_FB]
    assert not bits(cell)[DI_ZERO_SPEED]
    advance_by(cell, 400)
    assert not cell.truth().machines[MIXER].moving
    assert bits(cell)[DI_ZERO_SPEED]


def test_a_working_interlock_stops_the_mixer_when_the_door_opens() -> None:
    cell = running_mixer()
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 150)
    assert bits(cell)[:2] == (False, False)
    assert not bits(cell)[DI_SAFETY_OUT]
    assert not bits(cell)[DI_RUN_FB]


def test_closing_the_door_does_not_start_it_again_reset_and_start_do() -> None:
    """ISO 12100: closing permits, reset arms, start starts; three separate acts."""
    cell = running_mixer()
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 20_000)
    do(cell, Verb.START)
    do(cell, Verb.RESET)
    advance_by(cell, 1_000)
    assert not bits(cell)[DI_SAFETY_OUT], "a reset with the door open arms nothing"
    do(cell, Verb.CLOSE, "door-1")
    advance_by(cell, 1_000)
    assert not bits(cell)[DI_SAFETY_OUT]
    do(cell, Verb.START)
    advance_by(cell, 1_000)
    assert not bits(cell)[DI_RUN_FB]
    do(cell, Verb.RESET)
    advance_by(cell, 200)
    assert not bits(cell)[DI_SAFETY_OUT], "a reset acts when it is released"
    advance_by(cell, 800)
    assert bits(cell)[DI_SAFETY_OUT]
    assert not bits(cell)[DI_RUN_FB], "a reset must not start"
    do(cell, Verb.START)
    advance_by(cell, 1_000)
    assert bits(cell)[DI_RUN_FB]
    assert cell.image("plc-mixer").holding_registers[HR_RESET_COUNT] == 2


def test_a_jumpered_interlock_lets_it_run_and_the_truth_knows_how_long() -> None:
    cell = running_mixer()
    do(cell, Verb.DEFEAT, "door-1")
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 3_200)
    do(cell, Verb.CLOSE, "door-1")
    advance_by(cell, 1_000)
    assert cell.log.open_while_moving(MIXER, "door-1") == [(5_000, 8_200)]
    assert bits(cell)[DI_RUN_FB]


def test_a_welded_contactor_runs_on_though_the_output_dropped() -> None:
    cell = running_mixer()
    do(cell, Verb.WELD)
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 60_000)
    assert not bits(cell)[DI_SAFETY_OUT]
    assert bits(cell)[DI_RUN_FB]
    assert not cell.image("plc-mixer").discrete_inputs[7], "the feedback loop disagrees"
    do(cell, Verb.UNWELD)
    advance_by(cell, 13_000)
    assert not cell.truth().machines[MIXER].moving


def test_a_taped_switch_says_closed_while_the_door_is_open() -> None:
    cell = running_mixer()
    do(cell, Verb.TAPE, "door-1")
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 1_000)
    assert bits(cell)[:2] == (True, True)
    assert not cell.truth().machines[MIXER].guards["door-1"].closed
    do(cell, Verb.UNTAPE, "door-1")
    assert bits(cell)[:2] == (False, False)


def test_a_stuck_channel_disagrees_with_its_partner() -> None:
    cell = Cell(1)
    do(cell, Verb.STICK, "door-1", channel=2, on=True)
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 200)
    assert bits(cell)[:2] == (False, True)
    do(cell, Verb.UNSTICK, "door-1", channel=2)
    assert bits(cell)[:2] == (False, False)


def test_a_chattering_channel_opens_and_closes_fifty_times_a_second_until_it_is_told_to_stop() -> None:
    cell = Cell(1)
    cell.act(Act(Verb.CHATTER, machine=MIXER, guard="door-1", channel=2, on=True))
    seen = []
    for _ in range(200):
        cell.advance(cell.now_ms + 5)
        seen.append(cell.image("plc-mixer").discrete_inputs[:2])
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert 98 <= changes <= 100, "each change of a hundred a second, and channel A in peace"
    assert all(channel_a for channel_a, _ in seen)
    cell.act(Act(Verb.CHATTER, machine=MIXER, guard="door-1", channel=2, on=False))
    cell.act(Act(Verb.CHATTER, machine=MIXER, guard="door-1", channel=2, on=True))
    cell.act(Act(Verb.CHATTER, machine=MIXER, guard="door-1", channel=2, on=False))
    cell.advance(cell.now_ms + 1_000)
    assert cell.image("plc-mixer").discrete_inputs[:2] == (True, True)
    assert cell.next_ms is None


def test_the_bypass_key_shows_and_suspends_the_interlock() -> None:
    cell = running_mixer()
    do(cell, Verb.BYPASS, "door-1", on=True)
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 2_000)
    assert bits(cell)[12]
    assert bits(cell)[DI_RUN_FB]
    do(cell, Verb.BYPASS, "door-1", on=False)
    advance_by(cell, 100)
    assert not bits(cell)[DI_RUN_FB]


def test_a_locked_door_does_not_open_until_standstill_is_proven() -> None:
    cell = running_mixer()
    do(cell, Verb.STOP)
    do(cell, Verb.UNLOCK, "door-2")
    advance_by(cell, 11_000)
    assert do(cell, Verb.OPEN, "door-2") == "door-2 is locked"
    advance_by(cell, 3_000)
    assert do(cell, Verb.OPEN, "door-2") is None
    advance_by(cell, 200)
    assert bits(cell)[2:4] == (False, False)


def test_the_auxiliary_release_unlocks_a_moving_machine_and_trips_it() -> None:
    cell = running_mixer()
    do(cell, Verb.AUX_RELEASE, "door-2")
    advance_by(cell, 100)
    assert not bits(cell)[DI_LOCKED]
    assert cell.truth().machines[MIXER].moving
    assert not bits(cell)[DI_SAFETY_OUT]
    do(cell, Verb.AUX_RESTORE, "door-2")
    advance_by(cell, 200)
    assert bits(cell)[DI_LOCKED]


def test_a_start_while_the_bolt_is_leaving_starts_nothing() -> None:
    """The solenoid is driven, the bolt not out yet: a start now would open the lock on a moving machine."""
    cell = Cell(1)
    do(cell, Verb.UNLOCK, "door-2")
    cell.advance(UNLOCK_DELAY_MS)
    assert bits(cell)[DI_LOCK_CMD]
    assert bits(cell)[DI_LOCKED]
    do(cell, Verb.START)
    advance_by(cell, 1_000)
    assert not bits(cell)[DI_LOCKED]
    assert cell.log.of(Fact(MIXER, "", "moving"), value=True) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_door_slammed_at_once_ends_closed_on_both_channels(seed: int) -> None:
    """What the contacts had still to do for the opening is overtaken by the closing."""
    cell = Cell(seed)
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 3)
    do(cell, Verb.CLOSE, "door-1")
    advance_by(cell, 1_000)
    assert bits(cell)[:2] == (True, True)


def test_an_emergency_stop_opens_both_its_channels_and_stops() -> None:
    cell = running_mixer()
    do(cell, Verb.PRESS, "estop")
    advance_by(cell, 100)
    assert bits(cell)[8:10] == (False, False)
    assert not bits(cell)[DI_RUN_FB]


def test_a_pulled_cord_stops_the_belt_and_a_slipping_belt_lags() -> None:
    cell = Cell(1)
    cell.act(Act(Verb.START, machine="belt-03"))
    cell.advance(5_000)
    assert cell.image("plc-belt").input_registers[IR_BELT_SPEED] == 160
    cell.act(Act(Verb.SLIP, machine="belt-03", percent=50))
    assert cell.image("plc-belt").input_registers[IR_BELT_SPEED] == 80
    cell.act(Act(Verb.PULL, machine="belt-03", guard="pullcord-2"))
    cell.advance(5_100)
    assert cell.image("plc-belt").discrete_inputs[2] is False
    cell.advance(9_000)
    assert not cell.truth().machines["belt-03"].moving


def test_the_mode_selector_shows_in_its_register() -> None:
    cell = Cell(1)
    do(cell, Verb.MODE, mode=Mode.MAINT)
    assert cell.image("plc-mixer").holding_registers[HR_MODE] == 2


def test_a_stopped_controller_shows_the_past_and_its_heartbeat_stands() -> None:
    cell = running_mixer()
    cell.act(Act(Verb.PLC_STOP, device="plc-mixer"))
    before = cell.image("plc-mixer")
    do(cell, Verb.OPEN, "door-1")
    advance_by(cell, 20_000)
    assert cell.image("plc-mixer") == before
    assert cell.truth().devices == {"plc-mixer": False, "plc-belt": True, "plc-palletiser": True}
    cell.act(Act(Verb.PLC_RUN, device="plc-mixer"))
    assert bits(cell)[:2] == (False, False)
    assert cell.image("plc-mixer").holding_registers[HR_HEARTBEAT] == before.holding_registers[HR_HEARTBEAT]
    advance_by(cell, 100)
    assert (
        cell.image("plc-mixer").holding_registers[HR_HEARTBEAT] == before.holding_registers[HR_HEARTBEAT] + 1
    )


def test_an_absent_module_reads_as_all_healthy() -> None:
    cell = running_mixer()
    do(cell, Verb.PRESS, "estop")
    advance_by(cell, 100)
    cell.act(Act(Verb.ABSENT, device="plc-mixer"))
    assert all(bits(cell))
    assert not cell.truth().devices["plc-mixer"]
    cell.act(Act(Verb.PRESENT, device="plc-mixer"))
    assert not bits(cell)[8]


@pytest.mark.parametrize("seed", range(20))
def test_both_channels_follow_the_door_within_the_bounded_skew_and_bounce(seed: int) -> None:
    """From the leaf's move to the last chatter: skew, then at most 2 * DOOR_BOUNCE_MAX short edges a contact."""
    cell = Cell(seed)
    do(cell, Verb.OPEN, "door-1")
    settled_ms = DOOR_SKEW_MS_MAX + 2 * DOOR_BOUNCE_MAX * BOUNCE_MS_MAX
    cell.advance(settled_ms)
    assert bits(cell)[:2] == (False, False)
    after = bits(cell)
    cell.advance(settled_ms + 1_000)
    assert bits(cell) == after


def test_some_seeds_bounce_and_some_do_not_and_channels_differ() -> None:
    """The physics is worth having: edges are counted over seeds."""
    edges = []
    for seed in range(30):
        cell = Cell(seed)
        do(cell, Verb.OPEN, "door-1")
        seen = [bits(cell)[:2]]
        for ms in range(1, 80):
            cell.advance(ms)
            if bits(cell)[:2] != seen[-1]:
                seen.append(bits(cell)[:2])
        edges.append(len(seen) - 1)
        assert (False, True) in seen or (True, False) in seen or edges[-1] == 1
    assert min(edges) <= 2 < max(edges)


MIXER_VERBS = [
    verb
    for verb, fields in FIELDS.items()
    if "machine" in fields and verb not in {Verb.AUX_RELEASE, Verb.AUX_RESTORE, Verb.SLIP}
]
ACTS = st.lists(
    st.tuples(st.sampled_from(MIXER_VERBS), st.sampled_from(["door-1", "door-2"]), st.integers(0, 9_000)),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), acts=ACTS)
def test_whatever_is_done_a_lock_opens_only_at_standstill(
    seed: int, acts: list[tuple[Verb, str, int]]
) -> None:
    """Without the auxiliary release, at every moment the bolt leaves, the shaft stands."""
    cell = Cell(seed)
    was_bolted = True
    for verb, door, pause_ms in acts:
        guard = door if "guard" in FIELDS[verb] else ""
        if verb in {Verb.UNLOCK, Verb.LOCK}:
            guard = "door-2"
        if verb in {Verb.PRESS, Verb.RELEASE, Verb.PULL, Verb.RESET_CORD}:
            guard = "estop"
        do(cell, verb, guard)
        until_ms = cell.now_ms + pause_ms
        while cell.now_ms < until_ms:
            due_ms = cell.next_ms
            cell.advance(until_ms if due_ms is None else min(until_ms, due_ms))
            mixer = cell.truth().machines[MIXER]
            bolted = mixer.guards["door-2"].bolted
            assert bolted or not was_bolted or mixer.speed_rpm == 0
            assert mixer.moving or mixer.speed_rpm == 0
            was_bolted = bool(bolted)
        assert cell.truth().machines[MIXER].guards["door-2"].closed or not was_bolted


def trace(seed: int, step_ms: int) -> str:
    """A hash of every image and truth of ten minutes of people at work, sampled each second."""
    digest = hashlib.sha256()
    cell = Cell(seed, people=True)
    for second in range(0, 600_000, 1_000):
        for ms in range(second, second + 1_000, step_ms):
            cell.advance(ms)
        state = [asdict(cell.image(device)) for device in DEVICES] + [asdict(cell.truth())]
        digest.update(json.dumps(state).encode())
    spans = [[*span.fact, span.value, span.from_ms, span.until_ms] for span in cell.log.spans()]
    digest.update(json.dumps(spans).encode())
    return digest.hexdigest()


def test_the_size_of_steps_changes_nothing() -> None:
    assert trace(5, 1_000) == trace(5, 1_000)
    cell, other = Cell(5, people=True), Cell(5, people=True)
    cell.advance(3_600_000)
    for ms in range(0, 3_600_001, 250):
        other.advance(ms)
    assert list(cell.log.spans()) == list(other.log.spans())


def test_seeds_make_different_days() -> None:
    assert trace(5, 1_000) != trace(6, 1_000)


def test_one_seed_gives_one_trace_in_every_process() -> None:
    """Two interpreters with different hash seeds: nothing may hang on the order of a set."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_cell; print(test_cell.trace(9, 1000))"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path.cwd(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "77")
    }
    assert len(hashes) == 1
    assert hashes == {trace(9, 1_000) + "\n"}


@pytest.mark.thorough
def test_people_work_properly_most_of_the_time_and_sometimes_not() -> None:
    """A week of three operators: doors are opened many times at standstill, and a few times on a moving mixer."""
    cell = Cell(11, people=True)
    cell.advance(7 * 24 * 3_600_000)
    opened = len(cell.log.of(Fact(MIXER, "door-1", "closed"), value=False))
    dangerous = len(cell.log.open_while_moving(MIXER, "door-1"))
    assert opened > 500
    assert 0 < dangerous < opened / 2


def test_the_map_gives_no_input_two_meanings() -> None:
    """Per machine every discrete input of a guard is used once."""
    for machine in MACHINES.values():
        used = [at for guard in machine.guards for at in (*guard.channels, guard.bypass_at) if at is not None]
        assert len(used) == len(set(used))
    assert set(GuardKind) == {guard.kind for guard in GUARDS.values()}
