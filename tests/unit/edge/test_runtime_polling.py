"""Whose turn it is on a link: due times, request rates, silent devices, overruns; all in virtual time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from edge_agent.domain.plan import DevicePlan, ReadBlock, Table
from edge_agent.domain.units import NS_PER_MS, BlockId, DeviceId, MonoNs
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.runtime.polling import PollSchedule

OK = BlockOk(b"\0")
TIMEOUT = BlockFailed("timeout")
REFUSED = BlockFailed("exception:2")
READ_MS = 5
TIMEOUT_MS = 500


def ms(value: float) -> MonoNs:
    return MonoNs(round(value * NS_PER_MS))


def plant(*sizes: int, poll_ms: int = 200, max_rps: int = 1000) -> tuple[list[DevicePlan], list[ReadBlock]]:
    """Devices d0, d1, … with this many blocks each, on one link."""
    devices: list[DevicePlan] = []
    blocks: list[ReadBlock] = []
    for index, size in enumerate(sizes):
        name = DeviceId(f"d{index}")
        own = [
            ReadBlock(BlockId(len(blocks) + place), name, Table.DISCRETE_INPUT, 0, 8, (), poll_ms, 2000)
            for place in range(size)
        ]
        blocks += own
        ids = tuple(block.id for block in own)
        devices.append(
            DevicePlan(name, "modbus+tcp://x:502", index, poll_ms, TIMEOUT_MS, 2000, max_rps, None, (), ids)
        )
    return devices, blocks


class Line:
    """A link in virtual time: reads take `READ_MS`, silent devices `TIMEOUT_MS`."""

    def __init__(self, devices: list[DevicePlan], blocks: list[ReadBlock]) -> None:
        self.schedule = PollSchedule(devices, blocks, ms(0))
        self.now = ms(0)
        self.faults: dict[str, BlockOutcome] = {}
        self.reads: list[tuple[int, str, int]] = []
        self.skipped: list[int] = []

    def run(self, until_ms: float) -> None:
        while True:
            turn = self.schedule.next_turn()
            start = max(self.now, turn.due)
            if start >= ms(until_ms):
                return
            outcome = self.faults.get(turn.device.id, OK)
            took_ms = TIMEOUT_MS if outcome == TIMEOUT else READ_MS
            self.now = MonoNs(start + ms(took_ms))
            self.reads.append((start // NS_PER_MS, turn.device.id, turn.block.id))
            self.skipped += self.schedule.finish(turn, outcome, start, self.now)

    def times(self, device: str, block: int | None = None) -> list[int]:
        return [at for at, name, read in self.reads if name == device and block in {None, read}]


def test_each_block_is_read_once_a_poll_in_order() -> None:
    line = Line(*plant(3))
    line.run(400)
    assert line.reads == [
        (0, "d0", 0),
        (5, "d0", 1),
        (10, "d0", 2),
        (200, "d0", 0),
        (205, "d0", 1),
        (210, "d0", 2),
    ]


def test_devices_on_one_link_take_turns_by_due_time() -> None:
    line = Line(*plant(2, 2))
    line.run(200)
    assert Counter(name for _, name, _ in line.reads) == {"d0": 2, "d1": 2}


def test_max_rps_spaces_the_requests_of_a_device_and_only_of_that() -> None:
    devices, blocks = plant(3, 3, poll_ms=1000)
    line = Line([replace(devices[0], max_rps=10), devices[1]], blocks)
    line.run(1000)
    assert line.times("d0") == [0, 100, 200]
    assert line.times("d1")[-1] < 100


def test_a_late_poll_is_an_overrun_and_the_missed_ones_are_not_made_up() -> None:
    line = Line(*plant(50, poll_ms=100))
    line.run(1000)
    assert line.times("d0", 0) == [0, 250, 500, 750]
    assert line.schedule.overruns == 4


def test_a_silent_device_is_asked_for_one_block_and_the_others_fail_with_it() -> None:
    line = Line(*plant(3))
    line.faults["d0"] = TIMEOUT
    line.run(100)
    assert (line.reads, line.skipped) == ([(0, "d0", 0)], [1, 2])


def test_a_refusal_is_of_one_block_only() -> None:
    line = Line(*plant(3))
    line.faults["d0"] = REFUSED
    line.run(100)
    assert ([read for _, _, read in line.reads], line.skipped) == ([0, 1, 2], [])


def test_one_dead_unit_leaves_its_neighbours_four_fifths_of_their_polls() -> None:
    line = Line(*plant(1, 1, 1))
    line.faults["d1"] = TIMEOUT
    line.run(60_000)
    full = 60_000 / 200
    assert len(line.times("d0")) >= 0.8 * full
    assert len(line.times("d2")) >= 0.8 * full
    assert len(line.times("d1")) >= 60_000 / (10 * TIMEOUT_MS)


def test_a_device_alone_on_its_link_is_tried_at_its_own_pace() -> None:
    line = Line(*plant(1))
    line.faults["d0"] = TIMEOUT
    line.run(5000)
    assert len(line.times("d0")) == 10


def test_a_unit_that_returns_is_polled_fully_again() -> None:
    line = Line(*plant(1, 1))
    line.faults["d1"] = TIMEOUT
    line.run(20_000)
    line.faults.clear()
    line.run(30_000)
    assert len([at for at in line.times("d1") if at >= 26_000]) == 20


def test_counts_polls_and_errors_by_device() -> None:
    line = Line(*plant(2, 1))
    line.faults["d1"] = REFUSED
    line.run(1000)
    assert line.schedule.counters() == {"d0": (5, 0), "d1": (5, 5)}


def test_a_device_without_signals_is_never_read() -> None:
    devices, blocks = plant(0, 1)
    assert PollSchedule(devices[:1], blocks, ms(0)).is_empty
    line = Line(devices, blocks)
    line.run(1000)
    assert line.times("d0") == []
