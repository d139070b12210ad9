"""Polling: whose turn is it on a link, and the loop that reads.

Devices behind one URL share one link with one request in flight. The turn goes to the device that has been due
longest, one block at a time, so that a slow device delays the others by one request at most. A device that does not
answer is not asked for its other blocks in that poll; and where it has neighbours, it waits afterwards until it has
used no more than a tenth of the link's time, so that one dead unit behind a gateway leaves the others their rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from edge_agent.domain.plan import CellPlan, DevicePlan, ReadBlock
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, BlockId, DeviceId, MonoNs
from edge_agent.ports import BlockFailed, BlockOutcome, Clock, Fieldbus

SILENT_SHARE: Final = 10
"""A silent device may use one in this many parts of a shared link's time."""

_NAP_NS: Final = NS_PER_S
"""The longest sleep between two signs of life, however rarely a device is polled."""

_SILENT_REASONS: Final = frozenset({"timeout", "link", "bad_frame"})
"""Failures that the device's other blocks would meet too."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one read, as it goes into the engine's inbox."""

    block: BlockId
    outcome: BlockOutcome
    requested_at: MonoNs


Inbox: TypeAlias = Callable[[Reply], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Turn:
    """Read this block of this device, not before `due`."""

    due: MonoNs
    device: DevicePlan
    block: ReadBlock


class _Device:
    """One device on the link: when it is due, and how far its present poll has got."""

    def __init__(self, plan: DevicePlan, blocks: Sequence[ReadBlock], now: MonoNs) -> None:
        self.plan = plan
        self.blocks = blocks
        self.next_block = 0
        self.poll_due = now
        self.request_due = now
        self.polls = 0
        self.errors = 0
        self.overruns = 0

    @property
    def due(self) -> MonoNs:
        """When its next request may go out; within a poll only `max_rps` holds it back."""
        return max(self.poll_due, self.request_due)


class PollSchedule:
    """Whose turn it is on one link. Pure: takes the time, keeps counters."""

    def __init__(self, devices: Sequence[DevicePlan], blocks: Sequence[ReadBlock], now: MonoNs) -> None:
        self._devices = {
            plan.id: _Device(plan, [blocks[index] for index in plan.blocks], now)
            for plan in devices
            if plan.blocks
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self._devices

    def next_turn(self) -> Turn:
        """The turn that has been due longest, or is due first."""
        device = min(self._devices.values(), key=lambda device: device.due)
        return Turn(device.due, device.plan, device.blocks[device.next_block])

    def finish(self, turn: Turn, outcome: BlockOutcome, started: MonoNs, now: MonoNs) -> list[BlockId]:
        """A turn is over; blocks of the same device that are not asked for because of how it went."""
        device = self._devices[turn.device.id]
        device.request_due = MonoNs(started + NS_PER_S // device.plan.max_rps)
        device.next_block += 1
        skipped: list[BlockId] = []
        if isinstance(outcome, BlockFailed):
            device.errors += 1
            if outcome.reason in _SILENT_REASONS:
                skipped = [block.id for block in device.blocks[device.next_block :]]
                device.next_block = len(device.blocks)
                if len(self._devices) > 1:
                    pause = (now - started) * (SILENT_SHARE - 1)
                    device.request_due = max(device.request_due, MonoNs(now + pause))
        if device.next_block == len(device.blocks):
            self._end_poll(device, now)
        return skipped

    def counters(self) -> dict[DeviceId, tuple[int, int]]:
        """Polls and errors of each device since the start."""
        return {name: (device.polls, device.errors) for name, device in self._devices.items()}

    @property
    def overruns(self) -> int:
        """Polls that were still going on when the next was due."""
        return sum(device.overruns for device in self._devices.values())

    @staticmethod
    def _end_poll(device: _Device, now: MonoNs) -> None:
        device.next_block = 0
        device.polls += 1
        device.poll_due = MonoNs(device.poll_due + device.plan.poll_ms * NS_PER_MS)
        if device.poll_due < now:
            device.overruns += 1
            device.poll_due = now


def link_schedules(plan: CellPlan, now: MonoNs) -> dict[str, PollSchedule]:
    """One schedule for each URL of the plan."""
    urls = dict.fromkeys(device.url for device in plan.devices.values())
    return {
        url: PollSchedule([item for item in plan.devices.values() if item.url == url], plan.blocks, now)
        for url in urls
    }


async def poll_link(
    schedule: PollSchedule, link: Fieldbus, clock: Clock, inbox: Inbox, advance: Callable[[], None]
) -> None:
    """Read for ever; every outcome, good or bad, goes to `inbox`. `advance` tells the watchdog of each turn."""
    while True:
        turn = schedule.next_turn()
        await asyncio.sleep(0)  # also when late: a link that fails at once must not starve the other loops
        while (wait_ns := turn.due - clock.mono()) > 0:
            await asyncio.sleep(min(wait_ns, _NAP_NS) / NS_PER_S)
            advance()
        started = clock.mono()
        outcome = await link.read(turn.device.unit, turn.block, turn.device.timeout_ms)
        skipped = schedule.finish(turn, outcome, started, clock.mono())
        await inbox(Reply(turn.block.id, outcome, started))
        for block in skipped:
            await inbox(Reply(block, outcome, started))
        advance()
