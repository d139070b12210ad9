"""Signals: debouncing, unknown content, quality; and age and quality of the block they live in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.domain.plan import Coding
from edge_agent.domain.quality import BlockState, Supply, worst
from edge_agent.domain.signal import Signal
from edge_agent.wire.event import DeviceLost, GuardChanged, GuardState, Quality
from tests.unit.edge.rig import DOOR, MIXER, R29, Layout, Rig, cell, ns


def signal(debounce_ms: int = 0) -> Signal:
    plan = cell(Layout(debounce_ms=debounce_ms))
    block = BlockState(plan.blocks[0], ns(0), has_heartbeat=False)
    block.supply = Supply.GOOD
    return Signal(plan.signals[0], block)


def test_a_signal_is_unknown_before_its_first_sample() -> None:
    assert signal().truth is None


def test_without_debouncing_a_new_value_is_accepted_at_once() -> None:
    item = signal()
    assert item.take(True, ns(0))
    assert item.take(False, ns(1))
    assert (item.value, item.fell_at) == (False, ns(1))


def test_the_first_value_after_unknown_is_accepted_at_once_in_spite_of_debouncing() -> None:
    item = signal(debounce_ms=100)
    assert item.take(True, ns(0))
    assert item.truth is True


def test_a_new_value_is_accepted_at_the_first_sample_at_which_it_has_differed_long_enough() -> None:
    item = signal(debounce_ms=100)
    item.take(True, ns(0))
    assert not item.take(False, ns(10))
    assert not item.ripen(ns(109))
    assert item.ripen(ns(110))
    assert item.truth is False


def test_a_value_that_bounces_back_is_never_accepted_and_starts_anew() -> None:
    item = signal(debounce_ms=100)
    item.take(True, ns(0))
    item.take(False, ns(10))
    item.take(True, ns(50))
    assert not item.take(False, ns(60))
    assert not item.ripen(ns(150))
    assert item.ripen(ns(160))


def test_opening_and_closing_may_be_debounced_for_different_times() -> None:
    plan = cell(Layout())
    item = Signal(
        replace(plan.signals[0], coding=Coding(debounce_on_ms=1000, debounce_off_ms=0)),
        BlockState(plan.blocks[0], ns(0), has_heartbeat=False),
    )
    item.take(True, ns(0))
    assert item.take(False, ns(100))
    assert not item.take(True, ns(200))
    assert (item.truth, item.ripen(ns(1199)), item.ripen(ns(1200)), item.truth) == (False, False, True, True)


def test_refused_content_is_unknown_at_once_in_spite_of_debouncing() -> None:
    item = signal(debounce_ms=100)
    item.take(True, ns(0))
    assert item.take(None, ns(10))
    assert (item.value, item.quality) == (None, Quality.CONFIG_BAD)


def test_a_block_counts_the_signals_that_debounce_so_that_equal_bytes_still_step_them() -> None:
    item = signal(debounce_ms=100)
    item.take(True, ns(0))
    item.take(False, ns(10))
    assert item.block.debouncing == 1
    item.blind(Quality.STALE)
    assert item.block.debouncing == 0


@pytest.mark.parametrize(
    ("qualities", "result"),
    [
        ([], Quality.GOOD),
        ([Quality.GOOD, Quality.STALE], Quality.STALE),
        ([Quality.COMM_BAD, Quality.STALE], Quality.COMM_BAD),
        ([Quality.CONFLICT, Quality.GOOD], Quality.CONFLICT),
        ([Quality.FROZEN, Quality.CONFIG_BAD], Quality.CONFIG_BAD),
    ],
)
def test_several_qualities_are_as_bad_as_the_worst(qualities: list[Quality], result: Quality) -> None:
    assert worst(qualities) is result


# In the engine: age and quality.


def test_values_become_unknown_exactly_stale_ms_after_the_request_of_the_last_good_reply() -> None:
    rig = Rig(cell())
    rig.engine.receive_block(rig.plan.blocks[0].id, rig.plant.block(rig.plan.blocks[0]), ns(100), ns(400))
    rig.engine.handle_timer(ns(2099))
    assert rig.door().state is GuardState.CLOSED
    rig.engine.handle_timer(ns(2100))
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.STALE)


def test_one_lost_reply_changes_nothing() -> None:
    rig = Rig(cell())
    rig.run(1000)
    before = len(rig.drafts)
    rig.poll(fail=["plc1", "drive"])
    rig.now_ms += 200
    rig.poll()
    assert rig.drafts[before:] == []
    assert rig.door().quality is Quality.GOOD


def test_a_loss_after_failures_is_called_comm_bad() -> None:
    rig = Rig(cell())
    rig.run(1000)
    rig.dead = {"plc1"}
    rig.run(2000)
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.COMM_BAD)


def test_a_reply_that_is_too_old_already_is_no_sample() -> None:
    rig = Rig(cell())
    block = rig.plan.blocks[0]
    rig.engine.receive_block(block.id, rig.plant.block(block), ns(0), ns(0))
    rig.engine.receive_block(block.id, rig.plant.block(block), ns(0), ns(2000))
    assert rig.door().state is GuardState.UNKNOWN


def test_a_late_reply_never_replaces_a_younger_one() -> None:
    rig = Rig(cell())
    rig.run(600)
    block = rig.plan.blocks[0]
    rig.plant.closed = 0
    rig.engine.receive_block(block.id, rig.plant.block(block), ns(300), ns(600))
    assert rig.door().state is GuardState.CLOSED


def test_a_reply_of_the_wrong_length_is_no_sample() -> None:
    rig = Rig(cell())
    rig.run(1000)
    rig.engine.receive_block(rig.plan.blocks[0].id, b"", ns(1000), ns(1000))
    rig.wait(2000)
    assert rig.door().quality is Quality.COMM_BAD


def test_a_device_that_never_answers_goes_stale_stale_ms_after_the_start() -> None:
    rig = Rig(cell())
    assert not rig.engine.is_settled
    rig.wait(1999)
    assert not rig.engine.is_settled
    assert rig.drafts == []
    rig.wait(1)
    assert rig.engine.is_settled
    assert [type(draft.body).__name__ for draft in rig.drafts][:2] == ["DeviceLost", "DeviceLost"]


def test_content_that_means_nothing_is_config_bad_at_once() -> None:
    rig = Rig(cell())
    rig.run(400)
    rig.run(200, mode=9)
    [machine] = rig.engine.machine_views()
    assert (machine.mode, machine.quality) == (None, Quality.CONFIG_BAD)


def test_debouncing_in_the_engine_waits_for_samples_though_their_bytes_are_equal() -> None:
    rig = Rig(cell(Layout(debounce_ms=500)))
    rig.run(1000)
    rig.run(600, closed=0)
    assert rig.door().state is GuardState.CLOSED
    rig.poll()
    assert rig.door().state is GuardState.OPEN


# The heartbeat.


def beating() -> Rig:
    return Rig(cell(Layout(heartbeat_stale_ms=1000, device_rules=(R29,))))


def beat(rig: Rig, ms: float) -> None:
    """Polls, with the counter moving."""
    for _ in range(int(ms // 200)):
        rig.plant.heartbeat += 1
        rig.run(200)


def test_a_heartbeat_that_stands_still_freezes_every_signal_of_its_device() -> None:
    rig = beating()
    beat(rig, 2000)
    assert rig.door().quality is Quality.GOOD
    rig.run(1000)
    assert rig.door().quality is Quality.GOOD
    rig.run(400)
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.FROZEN)
    lost = [draft.body for draft in rig.drafts if type(draft.body).__name__ == "DeviceLost"]
    assert [(item.device, item.reason) for item in lost] == [("plc1", "frozen")]  # type: ignore[union-attr]


def test_a_heartbeat_that_moves_again_makes_its_block_good_at_once_and_the_others_with_their_next_reply() -> (
    None
):
    rig = beating()
    beat(rig, 2000)
    rig.run(2000)
    rig.plant.heartbeat += 1
    bits_block, words_block = rig.plan.blocks[:2]
    now = ns(rig.now_ms)
    rig.engine.receive_block(words_block.id, rig.plant.block(words_block), now, now)
    assert rig.engine.machine_views()[0].mode == "auto"
    assert rig.door().state is GuardState.UNKNOWN
    rig.engine.receive_block(bits_block.id, rig.plant.block(bits_block), now, now)
    assert rig.engine.guard_view(MIXER, DOOR).state is GuardState.CLOSED
    rig.commit()
    assert [type(draft.body).__name__ for draft in rig.drafts].count("DeviceRestored") == 1


def gap(rig: Rig, ms: float) -> None:
    rig.dead = {"plc1"}
    rig.run(ms)
    rig.dead = set()


def lost_reasons(rig: Rig) -> list[str]:
    return [item.reason for item in rig.bodies(DeviceLost)]


def test_after_a_start_nothing_of_a_stopped_controller_is_believed() -> None:
    rig = beating()
    rig.run(1000)
    assert (rig.door().state, rig.bodies(GuardChanged), rig.engine.is_settled) == (
        GuardState.UNKNOWN,
        [],
        False,
    )
    rig.run(600)
    assert (rig.door().state, rig.door().quality) == (GuardState.UNKNOWN, Quality.FROZEN)
    assert lost_reasons(rig) == ["frozen"]
    assert rig.engine.is_settled
    assert all(item.state is GuardState.UNKNOWN for item in rig.bodies(GuardChanged))


def test_after_a_start_the_first_movement_makes_everything_good_and_nothing_was_told_before() -> None:
    rig = beating()
    rig.run(400)
    beat(rig, 400)
    assert (rig.door().state, rig.door().quality) == (GuardState.CLOSED, Quality.GOOD)
    assert [item.was for item in rig.bodies(GuardChanged) if item.guard == "door"] == [None]


def test_after_a_restart_a_controller_that_stopped_meanwhile_never_looks_closed_again() -> None:
    rig = beating()
    beat(rig, 2000)
    rig.restart(epoch="01RUN0000B", down_ms=3000)
    rig.published.clear()
    rig.run(3000)
    assert {view.state for view in rig.published} <= {GuardState.UNKNOWN}
    assert rig.door().quality is Quality.FROZEN


def test_a_slow_counter_leaves_the_device_stale_and_then_frozen_and_the_first_report_does_not_wait() -> None:
    rig = Rig(cell(Layout(heartbeat_stale_ms=60_000, device_rules=(R29,))))
    rig.run(2200)
    assert (rig.door().quality, rig.engine.is_settled) == (Quality.STALE, True)
    assert lost_reasons(rig) == ["stale"]
    rig.run(60_000)
    assert rig.door().quality is Quality.FROZEN


def test_after_a_gap_a_counter_that_moved_meanwhile_is_believed_at_once() -> None:
    rig = beating()
    beat(rig, 2000)
    gap(rig, 3000)
    rig.plant.heartbeat += 1
    rig.run(400)
    assert (rig.door().state, rig.door().quality) == (GuardState.CLOSED, Quality.GOOD)


def test_after_a_gap_a_controller_that_stands_is_never_believed_and_frozen_in_the_end() -> None:
    rig = beating()
    beat(rig, 2000)
    gap(rig, 3000)
    rig.published.clear()
    rig.run(1000)
    assert rig.door().quality is Quality.COMM_BAD  # as it was: nothing is known yet
    rig.run(600)
    assert rig.door().quality is Quality.FROZEN
    assert {view.state for view in rig.published} <= {GuardState.UNKNOWN}
    assert lost_reasons(rig) == ["timeout"]


def test_what_stands_beside_a_heartbeat_that_cannot_be_read_is_frozen_after_its_time() -> None:
    rig = beating()
    beat(rig, 2000)
    bits_block, words_block = rig.plan.blocks[:2]
    seen = []
    for _ in range(7):
        now = ns(rig.now_ms)
        rig.engine.receive_failure(words_block.id, "exception:2", now)
        rig.engine.receive_block(bits_block.id, rig.plant.block(bits_block), now, now)
        seen.append(rig.door().quality)
        rig.now_ms += 200
    rig.commit()
    assert seen == [Quality.GOOD] * 5 + [Quality.FROZEN] * 2
    assert lost_reasons(rig) == ["frozen"]


def test_a_heartbeat_whose_content_says_nothing_does_not_move() -> None:
    plan = cell(Layout(heartbeat_stale_ms=1000, device_rules=(R29,)))
    broken = tuple(
        replace(signal, coding=Coding(sentinel=(0xFFFF,))) if signal.name == "heartbeat" else signal
        for signal in plan.signals
    )
    rig = Rig(replace(plan, signals=broken))
    beat(rig, 2000)
    rig.run(1400, heartbeat=0xFFFF)
    assert rig.door().quality is Quality.FROZEN


def test_a_frozen_device_is_told_by_lost_monitoring_in_its_time() -> None:
    rig = beating()
    rig.run(15_000)
    assert rig.story("monitoring_lost") == ["11200 +P2"]
