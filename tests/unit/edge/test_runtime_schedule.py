"""Whose turn it is on a connection: grid, rates, silent devices, overload; all in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.domain.plan import DevicePlan, ReadBlock, Table
from edge_agent.domain.units import NS_PER_MS, BlockId, DeviceId, MonoNs
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.runtime.schedule import (
    PROBE_MAX_S,
    PollCounters,
    PollSchedule,
    line_schedules,
    lines,
)
from edge_agent.runtime.turn import SPREAD_MAX_MS
from tests.unit.edge.rig import Layout, cell

OK = BlockOk(b"\0")
TIMEOUT = BlockFailed("timeout")
REFUSED_LINK = BlockFailed("link")
EXCEPTION = BlockFailed("exception:2")
NO_TARGET = BlockFailed("exception:11")
READ_MS = 5
TIMEOUT_MS = 500
TCP = "modbus+tcp://x:502"
RTU = "modbus+rtuovertcp://x:4001"


def ms(value: float) -> MonoNs:
    return MonoNs(round(value * NS_PER_MS))


def plant(
    *rates: Sequence[int], url: str = TCP, max_rps: int = 1000
) -> tuple[list[DevicePlan], list[ReadBlock]]:
    """Devices d0, d1, … on one connection; of each, the `poll_ms` of its blocks. Blocks are of falling size."""
    devices: list[DevicePlan] = []
    blocks: list[ReadBlock] = []
    for index, polls in enumerate(rates):
        name = DeviceId(f"d{index}")
        own = [
            ReadBlock(
                BlockId(len(blocks) + place), name, Table.HOLDING_REGISTER, 0, 100 - place, (), poll_ms, 2000
            )
            for place, poll_ms in enumerate(polls)
        ]
        blocks += own
        ids = tuple(block.id for block in own)
        poll_ms = min(polls, default=200)
        devices.append(DevicePlan(name, url, index, poll_ms, TIMEOUT_MS, 2000, max_rps, None, (), ids))
    return devices, blocks


class Line:
    """A connection in virtual time. Reads take `took_ms` of their device, silent devices what they are given."""

    def __init__(self, devices: list[DevicePlan], blocks: list[ReadBlock]) -> None:
        self.schedule = PollSchedule(devices, blocks, ms(0))
        self.now = ms(0)
        self.took_ms: dict[str, float] = {}
        self.faults: dict[str, BlockOutcome] = {}
        self.reads: list[tuple[float, str, int]] = []
        self.waited_ms: list[tuple[str, int]] = []
        self.skipped: list[int] = []

    def counted(self, device: str) -> PollCounters:
        return self.schedule.counters()[DeviceId(device)]

    @property
    def due_ms(self) -> float:
        """When the next request can go out."""
        return max(self.now, self.schedule.next_turn(self.now).due) / NS_PER_MS

    def step(self) -> None:
        turn = self.schedule.next_turn(self.now)
        start = max(self.now, turn.due)
        name, block = turn.device.id, turn.block.id
        took_ms = self.took_ms.get(name, READ_MS)
        outcome = self.faults.get(name, OK)
        if outcome == TIMEOUT or (outcome == OK and took_ms > turn.timeout_ms):
            outcome = TIMEOUT
            took_ms = turn.timeout_ms * (2 if turn.device.is_rtu_framed else 1)  # with the quiet afterwards
            self.waited_ms.append((name, turn.timeout_ms))
        elif outcome == REFUSED_LINK:
            took_ms = 0
        self.now = MonoNs(start + ms(took_ms))
        self.reads.append((start / NS_PER_MS, name, block))
        self.skipped += self.schedule.finish(turn, outcome, start, self.now)

    def run(self, until_ms: float) -> None:
        while self.due_ms < until_ms:
            self.step()

    def times(self, device: str, block: int | None = None, since_ms: float = 0) -> list[float]:
        return [
            at for at, name, read in self.reads if name == device and block in {None, read} and at >= since_ms
        ]

    def share_of_polls(self, device: str, poll_ms: int, since_ms: float) -> float:
        """Reads of a device's first block since then, against what is due."""
        first = self.reads_of(device)
        got = len(self.times(device, first, since_ms))
        return got / ((self.now / NS_PER_MS - since_ms) / poll_ms)

    def reads_of(self, device: str) -> int:
        return min(read for _, name, read in self.reads if name == device)

    def worst_gap_ms(self, device: str, since_ms: float) -> float:
        at = [*self.times(device, since_ms=since_ms), self.now / NS_PER_MS]
        return max(later - earlier for earlier, later in pairwise(at))


# the grid


def test_each_block_is_read_once_a_poll_in_order() -> None:
    line = Line(*plant([200] * 3))
    line.run(400)
    assert line.reads == [
        (0, "d0", 0),
        (5, "d0", 1),
        (10, "d0", 2),
        (200, "d0", 0),
        (205, "d0", 1),
        (210, "d0", 2),
    ]


def test_a_late_request_does_not_move_the_ticks_behind_it() -> None:
    line = Line(*plant([100]))
    line.run(100)
    line.now = ms(173)
    line.run(500)
    assert line.times("d0") == [0, 173, 200, 300, 400]
    assert line.counted("d0").overruns == 0


def test_an_overrun_is_counted_once_and_skips_the_ticks_that_it_missed() -> None:
    line = Line(*plant([100] * 50))
    line.run(1000)
    assert line.times("d0", 0) == [0, 300, 600, 900]
    assert line.counted("d0") == PollCounters(polls=3, errors=0, overruns=3)


@given(st.lists(st.floats(0, 450), min_size=1, max_size=60))
def test_every_poll_begins_at_or_after_a_tick_of_its_own_and_no_tick_is_used_twice(
    delays_ms: list[float],
) -> None:
    line = Line(*plant([100]))
    for delay_ms in delays_ms:
        line.now = MonoNs(line.now + ms(delay_ms))
        line.step()
    ticks = [int(at // 100) for at in line.times("d0")]
    assert len(set(ticks)) == len(ticks)


def test_groups_of_one_device_keep_their_own_rates() -> None:
    line = Line(*plant([100, 1000]))
    line.run(10_000)
    assert Counter(read for _, _, read in line.reads) == {0: 100, 1: 10}


def test_the_fast_group_goes_between_two_blocks_of_a_slow_one() -> None:
    line = Line(*plant([50, *[1000] * 30]))
    line.run(3000)
    fast = line.times("d0", 0)
    assert len(fast) == 60
    assert max(at % 50 for at in fast) <= READ_MS


def test_a_fast_group_that_overruns_does_not_starve_the_slow_one() -> None:
    line = Line(*plant([*[20] * 10, 1000]))
    line.run(10_000)
    assert len(line.times("d0", 10)) == 10


def test_first_polls_are_spread_and_go_out_within_the_interval_or_a_second() -> None:
    line = Line(*plant(*[[100]] * 10))
    line.run(100)
    assert sorted({name for _, name, _ in line.reads}) == [f"d{n}" for n in range(10)]
    first = sorted(at for at, _, _ in line.reads)
    assert min(later - earlier for earlier, later in pairwise(first)) >= READ_MS
    slow = Line(*plant(*[[3_600_000]] * 10))
    slow.run(SPREAD_MAX_MS)
    assert len(slow.reads) == 10


def test_groups_of_different_connections_do_not_fire_together() -> None:
    devices, blocks = plant(*[[100]] * 1000)
    plan = cell(Layout())
    apart = {plan.id: replace(plan, url=f"modbus+tcp://{plan.id}:502") for plan in devices}
    schedules = line_schedules(replace(plan, devices=apart, blocks=tuple(blocks)), ms(0))
    firsts = Counter(schedule.next_turn(ms(0)).due // ms(1) for schedule in schedules.values())
    assert (len(firsts), max(firsts.values())) == (100, 11)


# rates


def test_max_rps_spaces_the_requests_of_a_device_and_only_of_that() -> None:
    devices, blocks = plant([1000] * 3, [1000] * 3)
    line = Line([replace(devices[0], max_rps=10), devices[1]], blocks)
    line.run(1000)
    assert line.times("d0") == [0, 100, 200]
    assert pairwise_gaps(line.times("d1")) == {READ_MS}


def test_a_pause_keeps_the_connection_still_before_each_request_to_the_device() -> None:
    devices, blocks = plant([1000] * 3)
    line = Line([replace(devices[0], pause_ms=20)], blocks)
    line.run(1000)
    assert line.times("d0") == [20, 45, 70]


def pairwise_gaps(times: list[float]) -> set[float]:
    return {round(later - earlier, 6) for earlier, later in pairwise(times)}


def test_units_of_one_url_are_dealt_out_to_its_connections() -> None:
    devices, blocks = plant(*[[200]] * 5)
    plan = cell(Layout())
    several = {plan.id: replace(plan, connections=2) for plan in devices}
    dealt = lines(replace(plan, devices=several, blocks=tuple(blocks)))
    assert {name: [device.id for device in own] for name, own in dealt.items()} == {
        TCP: ["d0", "d2", "d4"],
        f"{TCP} (2)": ["d1", "d3"],
    }


def test_one_unit_needs_one_connection_however_many_it_may_have() -> None:
    devices, blocks = plant([200], [200])
    plan = cell(Layout())
    same_unit = {plan.id: replace(plan, connections=4, unit=1) for plan in devices}
    dealt = lines(replace(plan, devices=same_unit, blocks=tuple(blocks)))
    assert {name: len(own) for name, own in dealt.items()} == {TCP: 2}


# overload


def test_under_overload_all_devices_are_served_alike() -> None:
    line = Line(*plant(*[[20]] * 10))
    line.run(20_000)
    counts = Counter(name for _, name, _ in line.reads)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert min(counts.values()) >= 0.95 * 20_000 / (10 * READ_MS) * 5 / 6  # 50 ms of work: every third tick
    assert all(counted.overruns > 0.9 * counted.polls for counted in line.schedule.counters().values())


def test_overload_leaves_nothing_behind_when_it_is_over() -> None:
    line = Line(*plant(*[[20]] * 10))
    line.run(20_000)
    line.took_ms = {f"d{n}": 1 for n in range(10)}
    line.run(20_200)
    before = len(line.reads)
    line.run(21_200)
    assert len(line.reads) - before == 10 * 50


def test_a_device_with_many_blocks_delays_its_neighbours_by_one_request_at_most() -> None:
    line = Line(*plant([1000] * 60, [100]))
    line.run(10_000)
    assert len(line.times("d1")) == 100
    phase_ms = 61.8  # of the second group: the golden ratio's share of 100 ms
    assert max(at % 100 - phase_ms for at in line.times("d1")) <= READ_MS + 0.1
    assert line.counted("d1").overruns == 0


# silence


def test_a_silent_device_is_asked_for_one_block_and_the_others_fail_with_it() -> None:
    line = Line(*plant([200] * 3))
    line.faults["d0"] = TIMEOUT
    line.step()
    assert (line.reads, line.skipped) == ([(0, "d0", 0)], [1, 2])


def test_a_silent_device_is_probed_with_its_smallest_block_and_all_others_fail_with_it() -> None:
    line = Line(*plant([200, 200, 1000]))
    line.run(1000)
    line.faults["d0"] = TIMEOUT
    line.run(5000)
    line.skipped.clear()
    line.step()
    assert (line.reads[-1][2], line.skipped) == (2, [0, 1])


def test_a_refusal_is_of_one_block_only() -> None:
    line = Line(*plant([200] * 3))
    line.faults["d0"] = EXCEPTION
    line.run(100)
    assert ([read for _, _, read in line.reads], line.skipped) == ([0, 1, 2], [])


def test_a_gateway_that_names_a_unit_absent_is_believed() -> None:
    line = Line(*plant([200] * 3))
    line.faults["d0"] = NO_TARGET
    line.step()
    assert line.skipped == [1, 2]


def test_a_silent_device_is_no_overrun() -> None:
    line = Line(*plant([100]))
    line.faults["d0"] = TIMEOUT
    line.run(10_000)
    counted = line.counted("d0")
    assert (counted.polls, counted.errors, counted.overruns) == (20, 20, 0)


def test_a_device_alone_on_its_connection_is_tried_at_its_own_pace_but_every_five_seconds() -> None:
    fast, slow = Line(*plant([200])), Line(*plant([60_000]))
    for line in (fast, slow):
        line.faults["d0"] = TIMEOUT
        line.run(60_000)
    assert len(fast.times("d0")) == 60_000 / TIMEOUT_MS
    assert slow.worst_gap_ms("d0", 0) <= PROBE_MAX_S * 1000


DEAD = ("d2", "d5", "d9")
LIVE = tuple(f"d{n}" for n in range(10) if f"d{n}" not in DEAD)


@pytest.mark.parametrize("poll_ms", [100, 200, 1000])
@pytest.mark.parametrize("fault", [TIMEOUT, NO_TARGET, REFUSED_LINK])
def test_three_dead_of_ten_on_one_connection_leave_the_others_their_polls(
    fault: BlockOutcome, poll_ms: int
) -> None:
    line = Line(*plant(*[[poll_ms] * 2] * 10))
    line.run(5000)
    line.faults = dict.fromkeys(DEAD, fault)
    line.run(120_000)
    assert min(line.share_of_polls(name, poll_ms, 5000) for name in LIVE) >= 0.95
    assert max(line.worst_gap_ms(name, 5000) for name in DEAD) <= PROBE_MAX_S * 1000


def test_dead_devices_on_connections_of_their_own_cost_the_others_nothing() -> None:
    apart = [Line(*plant([200] * 2)) for _ in range(10)]
    for line, fault in zip(apart, (TIMEOUT, REFUSED_LINK, NO_TARGET), strict=False):
        line.faults["d0"] = fault
    for line in apart:
        line.run(60_000)
    assert all(len(line.times("d0", 0)) == 300 for line in apart[3:])


@pytest.mark.parametrize("is_dead_from_the_start", [True, False])
def test_thirty_dead_units_behind_one_gateway_leave_the_others_their_polls(
    is_dead_from_the_start: bool,
) -> None:
    line = Line(*plant(*[[200]] * 35))
    dead = [f"d{n}" for n in range(3, 33)]
    live = ["d0", "d1", "d2", "d33", "d34"]
    if not is_dead_from_the_start:
        line.run(5000)
    line.faults = dict.fromkeys(dead, TIMEOUT)
    line.run(30_000)
    line.run(150_000)
    assert min(line.share_of_polls(name, 200, 30_000) for name in live) >= 0.95
    assert max(line.worst_gap_ms(name, 30_000) for name in dead) <= PROBE_MAX_S * 1000


def test_a_dead_unit_on_rtu_framing_leaves_the_others_four_fifths() -> None:
    line = Line(*plant([200], [200], [200], url=RTU))
    line.run(5000)
    line.faults["d1"] = TIMEOUT
    line.run(120_000)
    assert {waited for _, waited in line.waited_ms} == {TIMEOUT_MS}
    assert line.share_of_polls("d0", 200, 5000) >= 0.8
    assert line.worst_gap_ms("d1", 5000) <= PROBE_MAX_S * 1000


@pytest.mark.parametrize("url", [TCP, RTU])
def test_one_lost_answer_makes_nobody_stale(url: str) -> None:
    """Noise hits any line now and then: the device is asked again at its own pace, long before its values are unknown."""
    line = Line(*plant([200] * 2, [200], [200], url=url))
    line.run(5000)
    line.faults["d0"] = TIMEOUT
    while line.waited_ms == []:
        line.step()
    line.faults.clear()
    line.run(20_000)
    for device in ("d0", "d1", "d2"):
        assert line.worst_gap_ms(device, 4000) <= 1500


def test_a_gap_of_the_whole_link_is_over_for_all_devices_with_the_first_answer_of_any() -> None:
    line = Line(*plant(*[[200]] * 8))
    line.run(5000)
    line.faults = {f"d{index}": TIMEOUT for index in range(8)}
    line.run(6200)
    line.faults.clear()
    line.run(20_000)
    assert max(line.worst_gap_ms(f"d{index}", 4000) for index in range(8)) <= 2000


def test_a_device_that_fails_every_other_read_on_rtu_framing_leaves_the_others_most_of_the_line() -> None:
    line = Line(*plant([200], [200], [200], url=RTU))
    line.run(5000)
    for _ in range(600):
        is_next_bad = len(line.times("d1")) % 2
        line.faults = {"d1": TIMEOUT} if is_next_bad else {}
        line.step()
    assert line.share_of_polls("d0", 200, 5000) >= 0.6


def test_a_device_that_garbles_its_answers_on_rtu_framing_is_as_good_as_silent() -> None:
    """Each garbled answer costs the line its quiet; over TCP it costs nothing, and is a matter of one block."""
    garbled = BlockFailed("short")
    rtu, tcp = Line(*plant([200] * 3, url=RTU)), Line(*plant([200] * 3))
    for line in (rtu, tcp):
        line.faults["d0"] = garbled
        line.step()
    assert (rtu.skipped, tcp.skipped) == ([1, 2], [])


def test_a_device_that_returns_is_polled_fully_at_once() -> None:
    line = Line(*plant([200] * 3, [200]))
    line.run(5000)
    line.faults["d0"] = TIMEOUT
    line.run(20_000)
    line.faults.clear()
    line.run(26_000)
    back = line.times("d0", since_ms=20_000)
    assert back[0] <= 20_000 + PROBE_MAX_S * 1000
    assert back[3] - back[0] <= 4 * 2 * READ_MS
    assert len(line.times("d0", 0, since_ms=back[0] + 1)) >= (26_000 - back[0]) // 200


def test_a_device_that_has_become_slow_is_found_again() -> None:
    """Slower than a short probe waits: now and then one gets the whole timeout."""
    line = Line(*plant(*[[200]] * 4))
    line.run(5000)
    line.took_ms["d1"] = 450
    line.faults["d1"] = TIMEOUT
    line.run(10_000)
    line.faults.clear()
    line.run(60_000)
    assert len(line.times("d1", since_ms=50_000)) >= 15


def test_a_link_that_comes_back_is_polled_fully_with_the_next_tick() -> None:
    line = Line(*plant(*[[200]] * 10))
    line.faults = {f"d{n}": REFUSED_LINK for n in range(10)}
    line.run(30_000)
    line.faults.clear()
    line.run(31_000)
    assert all(len(line.times(f"d{n}", since_ms=30_000)) >= 5 for n in range(10))


def test_counts_polls_and_errors_by_device() -> None:
    line = Line(*plant([200] * 2, [200]))
    line.faults["d1"] = EXCEPTION
    line.run(1000)
    assert line.schedule.counters() == {"d0": PollCounters(5, 0, 0), "d1": PollCounters(5, 5, 0)}


def test_a_device_without_signals_is_never_read() -> None:
    devices, blocks = plant([], [200])
    plan = cell(Layout())
    assert line_schedules(replace(plan, devices={devices[0].id: devices[0]}, blocks=()), ms(0)) == {}
    line = Line(devices, blocks)
    line.run(1000)
    assert line.times("d0") == []


def test_how_long_one_read_may_take_follows_from_the_longest_timeout_and_the_framing() -> None:
    assert PollSchedule(*plant([200], [200]), ms(0)).read_max_ms == 2 * TIMEOUT_MS
    assert PollSchedule(*plant([200], url=RTU), ms(0)).read_max_ms == 7 * TIMEOUT_MS + 2000


def test_the_parts_of_a_refused_block_are_asked_for_in_the_same_poll_and_in_its_place() -> None:
    line = Line(*plant([200, 200, 200]))
    line.step()
    turn = line.schedule.next_turn(line.now)
    refused = turn.block
    parts = [replace(refused, count=10), replace(refused, id=BlockId(3), start=50, count=10)]
    started = max(line.now, turn.due)
    line.now = MonoNs(started + ms(5))
    line.schedule.divide(turn, parts, started, line.now)
    line.run(400)
    assert [block for _, _, block in line.reads] == [0, 1, 3, 2, 0, 1, 3, 2]
    assert line.counted("d0") == PollCounters(2, 1, 0)


def test_the_parts_of_the_last_block_do_not_wait_for_the_next_poll() -> None:
    line = Line(*plant([3_600_000]))
    turn = line.schedule.next_turn(line.now)
    parts = [replace(turn.block, count=10), replace(turn.block, id=BlockId(1), start=50, count=10)]
    line.schedule.divide(turn, parts, turn.due, MonoNs(turn.due + ms(5)))
    line.run(5000)
    assert [block for _, _, block in line.reads] == [0, 1]


def test_a_silent_device_is_probed_with_the_smallest_part() -> None:
    line = Line(*plant([200, 200], [200]))
    turn = line.schedule.next_turn(line.now)
    small = replace(turn.block, id=BlockId(3), start=99, count=1)
    line.schedule.divide(turn, [replace(turn.block, count=50), small], turn.due, turn.due)
    line.faults[turn.device.id] = TIMEOUT
    line.run(10_000)
    assert {block for _, name, block in line.reads[10:] if name == turn.device.id} == {3}
