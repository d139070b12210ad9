"""R29 and the loss of devices: once per device, with what it blinds, over when all is good."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.domain.units import GuardId, MachineId, SignalId
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import ClockState, DeviceLost, DeviceRestored, ViolationChanged, ViolationRaised
from tests.unit.edge.rig import MIXER, R01, R29, Layout, Rig, cell, ns

NAME = "monitoring_lost"


DOOR_BY_R01 = Layout(door_rules=(R01,))


def good_minute(layout: Layout = DOOR_BY_R01) -> Rig:
    rig = Rig(cell(layout))
    rig.run(60_000)
    return rig


def test_a_dead_device_is_lost_at_stale_ms_and_raised_ten_seconds_later() -> None:
    rig = good_minute()
    rig.dead = {"plc1"}
    rig.run(30_000)
    [lost] = [draft for draft in rig.drafts if isinstance(draft.body, DeviceLost)]
    assert lost.observed == 61_800 * 1_000_000
    assert lost.body == DeviceLost("plc1", "timeout", ("mixer/door", "mixer/estop"))
    assert rig.story(NAME) == ["71800 +P2"]


def test_the_raise_belongs_to_the_device_and_lists_what_it_blinds() -> None:
    rig = good_minute()
    rig.dead = {"plc1"}
    rig.run(30_000)
    [raised] = rig.bodies(ViolationRaised)
    assert (raised.machine, raised.guard, raised.device) == (None, None, "plc1")
    assert (raised.evidence["guards"], raised.evidence["guards_count"]) == (["mixer/door", "mixer/estop"], 2)
    assert raised.evidence["held_min_ms"] == 10_000
    assert raised.evidence["sources"] == [
        {"block": "plc1/di/0", "quality": "comm_bad", "reason": "timeout"},
        {"block": "plc1/hr/0", "quality": "comm_bad", "reason": "timeout"},
    ]
    assert raised.basis == "proven"


def test_a_device_that_never_answers_is_raised_too() -> None:
    rig = Rig(cell())
    rig.wait(11_999)
    assert rig.story(NAME) == []
    rig.wait(1)
    assert rig.story(NAME) == ["12000 +P2", "12000 +P2"]


def test_a_drive_blinds_the_guards_whose_rules_need_its_motion() -> None:
    rig = good_minute()
    rig.dead = {"drive"}
    rig.run(5000)
    assert rig.bodies(DeviceLost) == [DeviceLost("drive", "timeout", ("mixer/door",))]


def test_it_clears_when_all_has_been_good_for_its_off_delay() -> None:
    rig = good_minute()
    rig.dead = {"plc1"}
    rig.run(30_000)
    rig.dead = set()
    rig.run(40_000)
    assert rig.story(NAME) == ["71800 +P2", "120000 -returned_to_normal"]
    assert rig.bodies(DeviceRestored) == [DeviceRestored("plc1", "good", ("mixer/door", "mixer/estop"))]


def test_a_device_that_comes_and_goes_is_raised_when_its_bad_time_adds_up() -> None:
    """Six seconds of silence leave four seconds unknown; three of them in a minute are more than ten."""
    rig = good_minute()
    for _ in range(3):
        rig.dead = {"plc1"}
        rig.run(6000)
        rig.dead = set()
        rig.run(9000)
    assert len(rig.story(NAME)) == 1
    assert len(rig.bodies(DeviceLost)) == 3


def test_what_of_a_device_is_bad_adds_up_whichever_of_its_sources_it_is() -> None:
    """Its mode means nothing for six seconds, then its bits are unknown for four: neither is bad for ten."""
    rig = good_minute()
    rig.run(6000, mode=9)
    rig.run(5000, mode=0)
    rig.dead = {"plc1/di"}
    rig.run(6000)
    assert rig.story(NAME) == ["76800 +P2"]
    [raised] = rig.bodies(ViolationRaised)
    assert raised.evidence["held_min_ms"] == 10_000


def test_content_that_means_nothing_counts_and_is_no_lost_device() -> None:
    rig = good_minute()
    rig.run(11_000, mode=9)
    assert rig.story(NAME) == ["70000 +P2"]
    assert rig.bodies(DeviceLost) == []
    [raised] = rig.bodies(ViolationRaised)
    assert raised.evidence["signals"] == {"mixer/mode": None}


def test_a_list_of_blinded_guards_that_grows_is_told() -> None:
    """The mode is read by the door's bypass rule; then the whole controller goes."""
    rig = good_minute(Layout())
    rig.run(11_000, mode=9)
    rig.dead = {"plc1"}
    rig.run(5000)
    [changed] = rig.bodies(ViolationChanged)
    assert (changed.reason, changed.evidence["guards"]) == ("guards", ["mixer/door", "mixer/estop"])


def test_a_device_that_feeds_no_motion_rule_of_a_machine_at_rest_is_less_urgent() -> None:
    quiet = Layout(door_rules=(), device_rules=(R29,))
    for running, priority in ((0, "P3"), (1, "P2")):
        rig = Rig(cell(quiet))
        rig.run(60_000, running=running)
        rig.dead = {"drive"}
        rig.run(20_000)
        assert [item.priority for item in rig.bodies(ViolationRaised)] == [priority]


def test_a_restart_while_lost_tells_the_loss_once_and_the_return_once() -> None:
    rig = good_minute()
    rig.dead = {"plc1"}
    rig.run(30_000)
    rig.restart(epoch="01RUN0000B", down_ms=3000)
    rig.run(30_000)
    rig.dead = set()
    rig.run(40_000)
    assert len(rig.bodies(DeviceLost)) == len(rig.bodies(DeviceRestored)) == 1
    assert [line.split(" ", 1)[1] for line in rig.story(NAME)] == ["+P2", "-returned_to_normal"]


def test_the_evidence_of_the_largest_device_with_the_longest_ids_fits_into_an_event() -> None:
    plan = cell(Layout(door_rules=(R01,), estop=False))
    machine, door = MachineId("m" * 48), "g" * 43
    mixer = plan.machines[MIXER]
    doors = tuple(
        replace(mixer.guards[0], id=GuardId(f"{door}-{index:04}"), machine=machine) for index in range(500)
    )
    [mode] = [item for item in plan.signals if item.name == "mode"]
    modes = tuple(
        replace(
            mode, id=SignalId(len(plan.signals) + index), machine=machine, guard=GuardId(f"{door}-{index:04}")
        )
        for index in range(500)
    )
    [bits_block, words_block, drive_block] = plan.blocks
    crowded = replace(words_block, signals=(*words_block.signals, *(item.id for item in modes)))
    rig = Rig(
        replace(
            plan,
            signals=(*plan.signals, *modes),
            blocks=(bits_block, crowded, drive_block),
            machines={machine: replace(mixer, id=machine, guards=doors)},
        )
    )
    rig.run(1000)
    rig.run(6000, mode=9)
    rig.engine.receive_failure(bits_block.id, "exception:2", ns(rig.now_ms))
    rig.wait(10_000)
    raised = [item for item in rig.bodies(ViolationRaised) if item.device == "plc1"]
    assert len(raised) == 1
    at, nil = "2026-11-22T00:00:00.000000Z", "0" * 64
    seal(Stamp("s" * 48, "a" * 48, "01RUN0000A", 1, "b" * 36, 0, at, ClockState.SYNCED, nil), raised[0])
