"""R09: mismatch held, latched, and cleared only by a clean full cycle."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from edge_agent.domain.plan import Table
from edge_agent.wire.event import GuardState, ViolationCleared, ViolationRaised
from tests.unit.edge.rig import DRIVE, R09, Layout, Rig, cell

ONLY_R09 = Layout(door_rules=(R09,), device_rules=(), door_signals=("ch_a", "ch_b"), estop=False, motion=())

BOTH_OPEN, BOTH_CLOSED, ONLY_A, ONLY_B = (0, 0), (1, 1), (1, 0), (0, 1)


def rig_with(*phases: tuple[tuple[int, int] | None, float]) -> Rig:
    """Channels, or None for a device that does not answer, for so many milliseconds each."""
    rig = Rig(cell(ONLY_R09))
    for channels, ms in phases:
        lay(rig, channels, ms)
    return rig


def lay(rig: Rig, channels: tuple[int, int] | None, ms: float) -> None:
    rig.dead = {"plc1"} if channels is None else set()
    if channels is not None:
        rig.set(ch_a=channels[0], ch_b=channels[1])
    rig.run(ms)


def story(rig: Rig) -> list[str]:
    return [line.split(" ", 1)[1] for line in rig.story("channel_discrepancy")]


RAISED = ((BOTH_CLOSED, 1000), (ONLY_A, 1000))


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (0, 0, []),  # open, normal
        (1, 1, []),  # closed, normal
        (0, 1, ["+P2"]),
        (1, 0, ["+P2"]),
    ],
)
def test_each_pair_of_equivalent_channels(a: int, b: int, told: list[str]) -> None:
    assert story(rig_with((BOTH_CLOSED, 1000), ((a, b), 2000))) == told


def test_a_mismatch_shorter_than_the_discrepancy_time_is_a_slow_door() -> None:
    assert story(rig_with((BOTH_CLOSED, 1000), (ONLY_B, 400), (BOTH_OPEN, 2000))) == []


def test_a_mismatched_pair_is_not_closed_at_once() -> None:
    rig = rig_with((BOTH_CLOSED, 1000), (ONLY_A, 200))
    assert rig.door().state is GuardState.OPEN


def test_an_unknown_channel_raises_nothing() -> None:
    assert story(rig_with((BOTH_CLOSED, 1000), (None, 60_000))) == []


def test_one_unknown_channel_is_no_mismatch() -> None:
    """Channel b stands on a second device, which does not answer."""
    plan = cell(replace(ONLY_R09, motion=("speed",)))
    [bits_block, words_block, drive_block] = plan.blocks
    moved = replace(plan.signals[1], device=DRIVE, table=Table.INPUT_REGISTER, number=0, bit=0)
    plan = replace(
        plan,
        signals=(plan.signals[0], moved, *plan.signals[2:]),
        blocks=(
            replace(bits_block, signals=bits_block.signals[:1]),
            words_block,
            replace(drive_block, signals=(moved.id, *drive_block.signals)),
        ),
    )
    rig = Rig(plan)
    rig.run(1000, running=1)
    rig.dead = {"drive"}
    rig.run(10_000)
    assert story(rig) == []
    rig.run(10_000, ch_a=0)
    assert (story(rig), rig.door().state) == ([], GuardState.OPEN)


def test_the_fault_is_latched_when_the_channels_merely_agree_again() -> None:
    rig = rig_with(*RAISED, (BOTH_CLOSED, 60_000))
    assert story(rig) == ["+P2"]
    assert rig.door().state is GuardState.FAULT


def test_it_clears_at_the_edge_that_ends_a_clean_full_cycle_after_the_raise() -> None:
    rig = rig_with(*RAISED, (BOTH_CLOSED, 1000), (BOTH_OPEN, 1000), (BOTH_CLOSED, 200))
    assert story(rig) == ["+P2", "-clean_cycle"]
    assert rig.door().state is GuardState.CLOSED
    [cleared] = rig.bodies(ViolationCleared)
    assert cleared.duration_ms == 3000


def test_the_cycle_in_which_it_was_raised_does_not_count() -> None:
    """Raised while opening: the closing that follows only starts the count."""
    rig = rig_with((BOTH_CLOSED, 1000), (ONLY_A, 1000), (BOTH_OPEN, 1000), (BOTH_CLOSED, 1000))
    assert story(rig) == ["+P2"]
    lay(rig, BOTH_OPEN, 1000)
    lay(rig, BOTH_CLOSED, 200)
    assert story(rig) == ["+P2", "-clean_cycle"]


@pytest.mark.parametrize(
    "spoiler",
    [
        (ONLY_B, 1000),  # a mismatch held again
        (None, 5000),  # nobody saw it
    ],
)
def test_a_cycle_with_a_held_mismatch_or_unknown_in_it_does_not_count(
    spoiler: tuple[tuple[int, int] | None, float],
) -> None:
    spoilt = rig_with(*RAISED, (BOTH_CLOSED, 1000), spoiler, (BOTH_OPEN, 1000), (BOTH_CLOSED, 1000))
    assert story(spoilt) == ["+P2"]
    lay(spoilt, BOTH_OPEN, 1000)
    lay(spoilt, BOTH_CLOSED, 1000)
    assert story(spoilt) == ["+P2", "-clean_cycle"]


def test_a_mismatch_in_passing_does_not_spoil_the_cycle() -> None:
    rig = rig_with(
        *RAISED, (BOTH_CLOSED, 1000), (ONLY_A, 200), (BOTH_OPEN, 1000), (ONLY_B, 200), (BOTH_CLOSED, 200)
    )
    assert story(rig) == ["+P2", "-clean_cycle"]


@pytest.mark.parametrize("restart_after", range(5))
def test_the_cycle_goes_on_over_a_restart(restart_after: int) -> None:
    rig = rig_with(*RAISED)
    phases = [(BOTH_CLOSED, 1000), (BOTH_OPEN, 1000), (BOTH_CLOSED, 1000)]
    for index, (channels, ms) in enumerate(phases):
        if index == restart_after:
            rig.restart(epoch="01RUN0000B")
        lay(rig, channels, ms)
    assert story(rig) == ["+P2", "-clean_cycle"]
    assert rig.memory.keys() == {"guard/mixer/door", "machine/mixer"}


def reference(sequence: tuple[tuple[int, int], ...]) -> list[str]:
    """The whole history of held phases: when is a fault there, when has a clean cycle ended?"""
    told: list[str] = []
    clean: list[tuple[int, int]] | None = None
    for pair in sequence:
        if pair[0] != pair[1]:
            if clean is None:
                told.append("+P2")
            clean = []
        elif clean is not None and (clean or pair == BOTH_CLOSED) and clean[-1:] != [pair]:
            clean.append(pair)
            if clean == [BOTH_CLOSED, BOTH_OPEN, BOTH_CLOSED]:
                told.append("-clean_cycle")
                clean = None
    return told


def test_every_sequence_of_six_held_phases_agrees_with_the_history_read_as_a_whole() -> None:
    pairs = (BOTH_OPEN, BOTH_CLOSED, ONLY_A)
    for sequence in itertools.product(pairs, repeat=6):
        rig = rig_with((BOTH_CLOSED, 200), *((pair, 800) for pair in sequence))
        assert story(rig) == reference(sequence), sequence


def test_evidence_names_both_channels() -> None:
    [raised] = rig_with(*RAISED).bodies(ViolationRaised)
    assert raised.evidence["signals"] == {"mixer/door/ch_a": True, "mixer/door/ch_b": False}
    assert raised.evidence["held_min_ms"] == 600
