"""Presence must be proven: what an absent module says, all ones or all zeros, is never taken for health."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.domain.plan import WHOLE_DEVICE, CellPlan, Coding, PresencePlan, SignalPlan, Table, ValueType
from edge_agent.domain.units import SignalId
from edge_agent.wire.event import (
    DeviceLost,
    DeviceRestored,
    GuardChanged,
    GuardState,
    Quality,
    ViolationRaised,
)
from tests.unit.edge.rig import MIXER, PLC, R29, Layout, Rig, cell, ns

IDENTITY = 4711
"""What the mode register holds while the module is there; the rig's plant gives it as `mode`."""


def guarded(name: str = WHOLE_DEVICE, *, same_block: bool = False) -> CellPlan:
    """The cell whose door hangs on a check of `plc1`: its mode register, or a bit of the door's own block."""
    plan = cell(
        Layout(mode=False, heartbeat_stale_ms=60_000, door_signals=("ch_a", "ch_b"), device_rules=(R29,))
    )
    module = None if name == WHOLE_DEVICE else name
    signals = [
        replace(signal, module=module) if signal.device == PLC and signal.name != "heartbeat" else signal
        for signal in plan.signals
    ]
    proof = SignalPlan(
        SignalId(len(signals)), f"presence/{name}", None, None, PLC, Table.HOLDING_REGISTER, 0, None,
        ValueType.UINT16, 200, Coding(true_when=(IDENTITY,)),
    )  # fmt: skip
    home = 1
    if same_block:
        proof = replace(proof, table=Table.DISCRETE_INPUT, number=5, type=ValueType.BIT, coding=Coding())
        home = 0
    blocks = tuple(
        replace(block, signals=(*block.signals, proof.id)) if block.id == home else block
        for block in plan.blocks
    )
    device = replace(plan.devices[PLC], presence=(PresencePlan(name, proof.id),), heartbeat=None)
    return replace(plan, signals=(*signals, proof), blocks=blocks, devices={**plan.devices, PLC: device})


def read(rig: Rig, *blocks: int, requested_ms: float | None = None) -> None:
    """Replies of these blocks, now."""
    for index in blocks:
        block = rig.plan.blocks[index]
        asked = ns(rig.now_ms if requested_ms is None else requested_ms)
        rig.engine.receive_block(block.id, rig.plant.block(block), asked, ns(rig.now_ms))
    rig.commit()


@pytest.mark.parametrize("name", [WHOLE_DEVICE, "xs1"])
@pytest.mark.parametrize("absent", [0, 0xFFFF])
def test_a_door_of_something_never_proven_present_is_never_closed(name: str, absent: int) -> None:
    rig = Rig(guarded(name))
    rig.run(20_000, mode=absent)
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.CONFIG_BAD)
    assert {view.state for view in rig.published} == {GuardState.UNKNOWN}
    (lost,) = rig.bodies(DeviceLost)
    assert lost.reason == ("absent" if name == WHOLE_DEVICE else "absent:xs1")
    assert "mixer/door" in lost.guards


def test_what_is_proven_present_is_as_good_as_without_a_check_and_an_open_door_is_seen() -> None:
    rig = Rig(guarded())
    rig.run(600, mode=IDENTITY)
    assert rig.door().state is GuardState.CLOSED
    rig.run(400, closed=0)
    assert rig.door().state is GuardState.OPEN


def test_a_check_that_fails_makes_all_that_it_covers_unknown_at_once() -> None:
    rig = Rig(guarded())
    rig.run(600, mode=IDENTITY)
    rig.set(mode=0xFFFF)
    read(rig, 1)
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.CONFIG_BAD)
    read(rig, 0)
    assert rig.door().state is GuardState.UNKNOWN


def test_a_module_that_is_not_covered_is_not_touched() -> None:
    plan = guarded("xs1")
    alone = tuple(
        replace(signal, module=None) if signal.name.startswith("ch_") else signal for signal in plan.signals
    )
    rig = Rig(replace(plan, signals=alone))
    rig.run(600, mode=0)
    assert rig.door().state is GuardState.CLOSED


def test_what_was_read_before_the_proof_came_is_not_believed_after_it() -> None:
    rig = Rig(guarded())
    rig.run(600, mode=0)
    rig.set(mode=IDENTITY)
    read(rig, 1)
    assert rig.door().state is GuardState.UNKNOWN
    rig.now_ms += 50
    read(rig, 0, requested_ms=rig.now_ms - 100)  # was on its way already
    assert rig.door().state is GuardState.UNKNOWN
    rig.now_ms += 50
    read(rig, 0)  # the same bytes
    assert rig.door().state is GuardState.CLOSED
    assert [item.reason for item in rig.bodies(DeviceRestored)] == ["good"]
    assert rig.engine._blocks[0].quiet


def test_the_age_of_the_proof_counts_when_it_is_read_elsewhere() -> None:
    rig = Rig(guarded())
    rig.run(600, mode=IDENTITY)
    for _ in range(12):
        rig.engine.receive_failure(rig.plan.blocks[1].id, "exception:4", ns(rig.now_ms))
        read(rig, 0)
        rig.now_ms += 200
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.COMM_BAD)
    assert [item.reason for item in rig.bodies(DeviceLost) if item.device == PLC] == ["exception:4"]
    read(rig, 1)
    rig.now_ms += 1
    read(rig, 0)
    assert rig.door().state is GuardState.CLOSED


def test_a_proof_in_the_same_answer_counts_at_once_both_ways() -> None:
    rig = Rig(guarded(same_block=True))
    rig.set(permit=1)
    read(rig, 0)
    assert rig.door().state is GuardState.CLOSED
    rig.set(permit=0)
    read(rig, 0)
    assert rig.door().state is GuardState.UNKNOWN
    rig.set(permit=1)
    read(rig, 0)
    assert rig.door().state is GuardState.CLOSED


def test_a_proof_that_is_read_first_lets_a_start_say_nothing_but_the_state() -> None:
    rig = Rig(guarded())
    rig.set(mode=IDENTITY)
    read(rig, 1)
    rig.now_ms += 5
    read(rig, 0, 2)
    rig.run(600)
    changes = [item for item in rig.bodies(GuardChanged) if item.guard == "door"]
    assert [(item.was, item.state) for item in changes] == [(None, GuardState.CLOSED)]


def test_lost_monitoring_names_the_absent_module_with_its_registers() -> None:
    rig = Rig(guarded("xs1"))
    rig.run(600, mode=IDENTITY)
    rig.run(11_000, mode=0xFFFF)
    raised = next(item for item in rig.bodies(ViolationRaised) if item.device == PLC)
    assert raised.rule == "monitoring_lost"
    assert raised.evidence["sources"] == [
        {"presence": "xs1", "block": "plc1/hr/0", "quality": "config_bad", "reason": "absent:xs1"}
    ]
    signals, registers = raised.evidence["signals"], raised.evidence["registers"]
    assert isinstance(signals, dict)
    assert isinstance(registers, dict)
    assert signals["presence/xs1"] is False
    assert registers["plc1/hr/0"] == "ffff0000"
    assert not rig.engine.device_view(PLC, ns(rig.now_ms)).up
    assert rig.engine.machine_views()[0].machine == MIXER


def test_a_first_reply_that_was_asked_for_before_the_proof_came_does_not_leave_its_door_unknown_for_ever() -> (
    None
):
    rig = Rig(guarded())
    rig.set(mode=IDENTITY)
    rig.now_ms = 50
    read(rig, 1)
    rig.now_ms = 60
    read(rig, 0, requested_ms=40)  # on its way already when the proof came
    assert rig.door().state is GuardState.UNKNOWN
    rig.run(1000)  # the same bytes again and again
    assert rig.door().state is GuardState.CLOSED
