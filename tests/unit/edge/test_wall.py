"""The wall clock decides nothing: whatever it says, verdicts, order and durations are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.domain.units import NS_PER_MS, NS_PER_S, UtcNs
from edge_agent.domain.wall import parse_rfc3339, rfc3339
from edge_agent.wire.codec import body_document
from edge_agent.wire.event import ViolationCleared, ViolationRaised
from tests.unit.edge.rig import UTC_AT_START, Rig, cell

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = UTC_AT_START // NS_PER_MS

WALLS = (
    -HOUR_MS,
    HOUR_MS,
    10 * DAY_MS,
    3650 * DAY_MS,
    -START_MS,  # 1970
    2**31 * 1000 - START_MS,  # the end of 32 bits
    253_402_300_800_000 - START_MS,  # the year 10000
    -START_MS - 10_000,  # before 1970
)
_LABEL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@dataclass(frozen=True)
class Turn:
    """The plant holds this for `ms`; before it the wall clock is set, and the agent dies, or its machine."""

    ms: int = 1000
    closed: int = 1
    running: int = 0
    locked: int = 0
    bypass: int = 0
    is_read: bool = True
    wall_ms: int | None = None
    is_synced: bool = True
    is_killed: bool = False


TURNS = st.lists(
    st.builds(
        Turn,
        ms=st.sampled_from([150, 600, 2500, 20_000]),
        closed=st.sampled_from([1, 0]),
        running=st.sampled_from([0, 1]),
        locked=st.sampled_from([0, 1]),
        bypass=st.sampled_from([0, 0, 0, 1]),
        is_read=st.sampled_from([True, True, True, False]),
        wall_ms=st.none() | st.sampled_from([*WALLS, 0]),
        is_synced=st.booleans(),
        is_killed=st.sampled_from([False, False, False, True]),
    ),
    min_size=2,
    max_size=14,
)


def told(turns: Sequence[Turn], *, has_wall: bool) -> list[tuple[int, str]]:
    """Everything that an agent states of this story, with its monotonic time and without wall times."""
    rig = Rig(cell())
    for number, turn in enumerate(turns):
        if turn.is_killed:
            rig.restart(epoch=f"01RUN00{number:03}", down_ms=700)
        if has_wall and turn.wall_ms is not None:
            rig.step_wall(turn.wall_ms, is_synced=turn.is_synced)
        speed = 240 * turn.running
        values = {"closed": turn.closed, "running": turn.running, "zero_speed": 1 - turn.running}
        values |= {"locked": turn.locked, "bypass": turn.bypass, "speed": speed}
        if turn.is_read:
            rig.run(turn.ms, poll_ms=200, **values)
        else:
            rig.set(**values)
            rig.wait(turn.ms)
    return [
        (draft.observed, _LABEL.sub("-", json.dumps(body_document(draft.body), default=str, sort_keys=True)))
        for draft in rig.drafts
    ]


@settings(max_examples=60, deadline=None)
@given(TURNS)
@example(
    [
        Turn(2500, running=1),
        *(Turn(2500, 0, 1, wall_ms=wall_ms) for wall_ms in WALLS),
        Turn(20_000, wall_ms=0),
    ]
)
def test_the_same_story_under_any_wall_clock_gives_the_same_events_at_the_same_times(
    turns: list[Turn],
) -> None:
    assert told(turns, has_wall=True) == told(turns, has_wall=False)


def opened(*, is_synced: bool = True) -> Rig:
    """The door has been open for two seconds on the running machine."""
    rig = Rig(cell())
    rig.step_wall(0, is_synced=is_synced)
    rig.run(1000, closed=1, running=1, zero_speed=0, speed=240)
    rig.run(2000, closed=0)
    assert "guard_open_motion" in {raised.rule for raised in rig.bodies(ViolationRaised)}
    return rig


def cleared(rig: Rig) -> ViolationCleared:
    rig.run(4000, closed=1)
    return next(body for body in rig.bodies(ViolationCleared) if body.rule == "guard_open_motion")


@pytest.mark.parametrize("wall_ms", WALLS)
def test_a_step_while_a_violation_is_open_leaves_one_raise_one_clear_and_the_right_duration(
    wall_ms: int,
) -> None:
    rig = opened()
    rig.step_wall(wall_ms, is_synced=False)
    end = cleared(rig)
    (raised,) = [body for body in rig.bodies(ViolationRaised) if body.rule == "guard_open_motion"]
    assert end.occurrence == raised.occurrence
    assert end.duration_ms == end.duration_min_ms == end.duration_max_ms == cleared(opened()).duration_ms


@pytest.mark.parametrize(("was_synced", "is_synced"), [(False, True), (True, False), (False, False)], ids=str)
def test_over_a_reboot_an_unsynchronised_wall_clock_measures_nothing(
    was_synced: bool, is_synced: bool
) -> None:
    """It may have begun in 1970 in either boot: only what was seen is counted, in decades off else."""
    rig = opened(is_synced=was_synced)
    rig.now_ms = 0
    rig.step_wall(10 * DAY_MS, is_synced=is_synced)
    rig.restart(epoch="01RUN0000B", boot="boot-2")
    rig.run(2000)
    end = cleared(rig)
    assert 2000 <= end.duration_min_ms == end.duration_ms == end.duration_max_ms < 20_000


@pytest.mark.parametrize(
    ("utc_s", "text"),
    [
        (-1, "1970-01-01T00:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (2**31, "2038-01-19T03:14:08.000000Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        (253_402_300_800, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_labels_stay_within_what_rfc_3339_can_write(utc_s: int, text: str) -> None:
    assert rfc3339(UtcNs(utc_s * NS_PER_S)) == text
    assert rfc3339(parse_rfc3339(text)) == text
