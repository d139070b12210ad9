"""Doubts about a number that cannot be meant so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.domain.plan import Coding, Endian, SignalPlan, Table, ValueType
from edge_agent.domain.plausibility import doubt
from edge_agent.domain.units import DeviceId, MachineId, SignalId

SPEED = SignalPlan(
    SignalId(0), "speed", MachineId("mixer"), None, DeviceId("plc"), Table.HOLDING_REGISTER, 10, None,
    ValueType.FLOAT32, 200, Coding(unit="rpm", rated=24.0),
)  # fmt: skip


def test_a_plausible_value_raises_no_doubt() -> None:
    assert doubt(SPEED, [0x41C4, 0], 0) is None


def test_swapped_words_are_suspected() -> None:
    told = doubt(SPEED, [0, 0x41C4], 0)
    assert told is not None
    assert told.endswith("swapped? with word_order: little it would be 24.5")


def test_a_value_written_with_swapped_words_that_needs_none_is_suspected_too() -> None:
    told = doubt(replace(SPEED, coding=replace(SPEED.coding, word_order=Endian.LITTLE)), [0x41C4, 0], 0)
    assert told is not None
    assert "word_order: big" in told


def test_a_neighbouring_address_is_suspected() -> None:
    whole = replace(SPEED, type=ValueType.UINT16, coding=Coding(rated=30.0))
    told = doubt(whole, [24, 0xFFFF], 1)
    assert told is not None
    assert told.endswith("1-based? at hr/9 it would be 24")


@pytest.mark.parametrize(
    "change",
    [
        {"coding": Coding()},
        {"coding": Coding(rated=24.0, map={0: "auto"})},
        {"type": ValueType.BIT, "bit": 0},
    ],
)
def test_what_has_no_measure_cannot_be_doubted(change: dict[str, object]) -> None:
    assert doubt(replace(SPEED, **change), [0xFFFF, 0xFFFF], 0) is None  # type: ignore[arg-type]


def test_a_standing_machine_is_no_doubt() -> None:
    assert doubt(SPEED, [0, 0], 0) is None
