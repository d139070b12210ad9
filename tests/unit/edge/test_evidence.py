"""Evidence: no floats, raw content beside its reading, long blocks cut to what matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.domain.decode import Value
from edge_agent.domain.evidence import gather, readable
from edge_agent.domain.occurrence import recalled
from edge_agent.domain.plan import Grade, SignalPlan, Table, ValueType
from edge_agent.domain.quality import BlockState
from edge_agent.domain.signal import Signal
from edge_agent.domain.wall import parse_rfc3339
from edge_agent.wire.event import Json, ViolationRaised
from tests.unit.edge.rig import R01, Layout, Rig, cell, ns


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (True, True),
        ("auto", "auto"),
        (7, "7"),
        (2**63, "9223372036854775808"),
        (0.1 + 0.2, "0.3"),
        (-12.5, "-12.5"),
        (1e-7, "0.0000001"),
        (1e300, "1E+300"),
    ],
)
def test_values_are_readable_and_never_floats(value: Value, text: Json) -> None:
    assert readable(value) == text


def test_a_machine_with_only_a_running_feedback_gets_grade_c_and_others_their_worst_input() -> None:
    for motion, grade in ((("running",), "C"), (("running", "zero_speed"), "B")):
        plan = cell(Layout(door_rules=(R01,), estop=False, motion=motion))
        graded = tuple(
            replace(item, grade=Grade.B if item.name == "ch_a" else Grade.A) for item in plan.signals
        )
        rig = Rig(replace(plan, signals=graded))
        rig.run(1000, running=1, zero_speed=0)
        rig.run(2000, closed=0)
        [raised] = rig.bodies(ViolationRaised)
        assert raised.evidence["grade"] == grade


def wide(plan: SignalPlan, table: Table, count: int, data: bytes) -> Signal:
    block = replace(cell().blocks[0], table=table, start=100, count=count)
    state = BlockState(block, ns(0), has_heartbeat=False)
    state.data = data
    return Signal(plan, state)


@pytest.mark.parametrize(
    ("table", "kind", "count", "registers"),
    [
        # 125 registers are 250 bytes: only the two registers of the value, at 103
        (Table.HOLDING_REGISTER, ValueType.UINT32, 125, {"plc1/hr/103": "06070809"}),
        # 2000 bits are 250 bytes: only the byte that holds bit 103 - 100
        (Table.COIL, ValueType.BIT, 2000, {"plc1/co/103": "00"}),
        # a small block stands there whole
        (Table.COIL, ValueType.BIT, 16, {"plc1/co/100": "0001"}),
    ],
)
def test_raw_content_is_whole_for_small_blocks_and_cut_for_long_ones(
    table: Table, kind: ValueType, count: int, registers: dict[str, str]
) -> None:
    plan = replace(cell().signals[0], table=table, number=103, type=kind)
    data = bytes(range(250)) if count > 16 else bytes(range(2))
    assert gather(R01, [wide(plan, table, count, data)], ns(0), (0, 0))["registers"] == registers


def test_a_block_that_never_answered_has_no_raw_content() -> None:
    plan = cell()
    signal = Signal(plan.signals[0], BlockState(plan.blocks[0], ns(0), has_heartbeat=False))
    evidence = gather(R01, [signal], ns(0), (0, 0))
    assert (evidence["registers"], evidence["ages_ms"]) == ({}, {"plc1/di/0": None})


@pytest.mark.parametrize("since", ["yesterday", "2026-11-22T15:08:00"])
def test_an_open_occurrence_with_a_bad_label_is_not_taken_up(since: str) -> None:
    rig = Rig(cell())
    rig.run(1000, running=1)
    rig.run(2000, closed=0)
    [kept] = [value for key, value in rig.memory.items() if key.startswith("open/")]
    assert isinstance(kept, dict)
    assert recalled(kept, "boot-1") is not None
    assert recalled({**kept, "since": since}, "boot-1") is None
    assert recalled({**kept, "known_us": "long"}, "boot-1") is None
    with pytest.raises(ValueError, match=r"Invalid|time zone"):
        parse_rfc3339(since)
