"""The loop that reads one connection, on a virtual clock: what it hands over, how it sleeps, what it starves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from edge_agent.domain.plan import DevicePlan, ReadBlock
from edge_agent.domain.units import BlockId, MonoNs
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from edge_agent.runtime.naps import Naps
from edge_agent.runtime.polling import Reply, poll_line
from edge_agent.runtime.schedule import PollSchedule
from tests.simulation.clocks import NodeClock
from tests.simulation.virtual_loop import run_virtual, virtual_loop
from tests.unit.edge.test_runtime_schedule import plant


@dataclass
class Link:
    """Answers after `took_ms`, or fails."""

    took_ms: float = 3
    outcome: BlockOutcome = field(default_factory=lambda: BlockOk(b"\1"))
    asked: list[tuple[int, BlockId, int]] = field(default_factory=list)
    requests: Mapping[int, int] = field(default_factory=dict)

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        self.asked.append((unit, block.id, timeout_ms))
        if self.took_ms:
            await asyncio.sleep(self.took_ms / 1000)
        return self.outcome

    async def close(self) -> None:
        """Nothing to give back."""


@dataclass
class Intake:
    """Notes what it is given; `news` says whether answers have to be queued."""

    news: bool = False
    unchanged: list[tuple[BlockId, bytes, int]] = field(default_factory=list)
    accepted: list[Reply] = field(default_factory=list)
    parts: dict[BlockId, Sequence[ReadBlock]] = field(default_factory=dict)
    splits: list[BlockId] = field(default_factory=list)

    def take(self, block: BlockId, data: bytes, requested_at: MonoNs, now: MonoNs) -> bool:
        if not self.news:
            self.unchanged.append((block, data, (now - requested_at) // 1_000_000))
        return not self.news

    def pieces(self, block: ReadBlock) -> Sequence[ReadBlock]:
        return [part for part in self.parts.get(block.id, ()) if part != block]

    def split(self, block: ReadBlock) -> Sequence[ReadBlock]:
        parts = self.parts.get(block.id, ())
        self.splits.append(block.id)
        return () if list(parts) == [block] else parts

    async def accept(self, reply: Reply) -> None:
        self.accepted.append(reply)


def poll(
    link: Link, intake: Intake, seconds: float, planned: tuple[list[DevicePlan], list[ReadBlock]]
) -> list[float]:
    """Poll for so long; when the watchdog was told (seconds)."""
    told: list[float] = []

    async def main() -> None:
        loop = virtual_loop()
        clock = NodeClock(loop, "gw", 0)
        schedule = PollSchedule(*planned, clock.mono())
        polling = asyncio.create_task(
            poll_line(schedule, link, clock, intake, lambda: told.append(loop.time()), naps=Naps())
        )
        await asyncio.sleep(seconds)
        polling.cancel()

    run_virtual(main)
    return told


def test_an_unchanged_answer_is_taken_on_the_spot_with_the_times_of_its_read() -> None:
    intake = Intake()
    poll(Link(), intake, 0.95, plant([100]))
    assert (intake.unchanged, intake.accepted) == ([(BlockId(0), b"\1", 3)] * 10, [])


def test_news_goes_into_the_inbox() -> None:
    intake = Intake(news=True)
    poll(Link(), intake, 0.15, plant([100]))
    first = intake.accepted[0]
    assert len(intake.accepted) == 2
    assert (first.block, first.outcome) == (0, BlockOk(b"\1"))
    assert first.received_at - first.requested_at == 3_000_000


def test_a_failure_goes_into_the_inbox_with_the_blocks_that_are_not_asked_for() -> None:
    intake = Intake()
    poll(Link(outcome=BlockFailed("timeout")), intake, 0.05, plant([100] * 3))
    assert [reply.block for reply in intake.accepted] == [0, 1, 2]
    assert len({(reply.outcome, reply.requested_at, reply.received_at) for reply in intake.accepted}) == 1


def test_a_link_that_fails_at_once_starves_nobody() -> None:
    link = Link(took_ms=0, outcome=BlockFailed("link"))
    poll(link, Intake(), 1, plant(*[[10]] * 20))
    assert len(link.asked) <= 20 * 101


def test_the_watchdog_is_told_every_second_however_rarely_a_device_is_polled() -> None:
    told = poll(Link(), Intake(), 60, plant([60_000]))
    assert max(later - earlier for earlier, later in pairwise(told)) <= 1.001


def test_a_refused_address_has_failed_only_when_there_is_nothing_smaller_to_ask_for() -> None:
    devices, blocks = plant([100])
    half = replace(blocks[0], count=1)
    link, intake = Link(outcome=BlockFailed("exception:2")), Intake(parts={BlockId(0): [half]})
    poll(link, intake, 0.05, (devices, blocks))
    assert [asked for _, asked, _ in link.asked] == [0, 0]
    assert [(reply.block, reply.outcome) for reply in intake.accepted] == [(0, BlockFailed("exception:2"))]


def test_each_block_has_failed_once_when_the_piece_of_a_refused_one_meets_silence() -> None:
    devices, blocks = plant([100, 100])
    piece = replace(blocks[0], count=1)

    class Device(Link):
        async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
            await super().read(unit, block, timeout_ms)
            return BlockFailed("timeout" if block == piece else "exception:2")

    intake = Intake(parts={BlockId(0): [piece]})
    poll(Device(), intake, 0.05, (devices, blocks))
    assert sorted((reply.block, reply.outcome) for reply in intake.accepted) == [
        (0, BlockFailed("timeout")),
        (1, BlockFailed("timeout")),
    ]


def test_a_fast_group_goes_between_and_the_refused_block_of_a_slow_one_is_split_all_the_same() -> None:
    devices, blocks = plant([10, 1000])
    fast, slow = blocks
    piece = replace(slow, count=1)

    class Device(Link):
        async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
            await super().read(unit, block, timeout_ms)
            await asyncio.sleep(0.01)
            is_refused = block == slow or (block == fast and len(self.asked) % 2)
            return BlockFailed("exception:2") if is_refused else BlockOk(b"\1")

    device, intake = Device(), Intake(parts={slow.id: [piece]})
    poll(device, intake, 5, (devices, blocks))
    assert intake.splits == [slow.id]


def test_only_a_refused_address_asks_for_smaller_parts() -> None:
    devices, blocks = plant([100])
    for reason in ("exception:6", "exception:3", "timeout", "link"):
        intake = Intake(parts={BlockId(0): [replace(blocks[0], count=1)]})
        poll(Link(outcome=BlockFailed(reason)), intake, 0.05, (devices, blocks))
        assert [reply.outcome for reply in intake.accepted] == [BlockFailed(reason)]
