"""Polling: the loop that reads one connection for ever, as its schedule says.

One loop for each connection, so a dead one slows no other. What a read brings goes to the `Intake`: a good answer is
judged on the spot (the usual case, and the reason why a poll is cheap); what cannot be goes into the inbox, in order.

A block whose address is refused may be too long, or lack an address; or its device refuses everything, since it is starting
or its program is being loaded. So one piece of it is asked for, another in each poll. Is that refused too, the block has
failed. Does the device give it, the block is asked for again, and refused again it is split for good: its parts are asked
for in its place. All this within one poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.units import NS_PER_MS, BlockId, MonoNs
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome, Clock, Fieldbus
from edge_agent.runtime.naps import Naps
from edge_agent.runtime.refusals import ILLEGAL_ADDRESS
from edge_agent.runtime.schedule import PollSchedule
from edge_agent.runtime.turn import Turn

_NAP_MS: Final = 1000
"""The longest sleep between two signs of life, however rarely a device is polled."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one read, as it goes into the inbox."""

    block: BlockId
    outcome: BlockOutcome
    requested_at: MonoNs
    received_at: MonoNs


class Intake(Protocol):
    """Where replies go: the pump."""

    def take(self, block: BlockId, data: bytes, requested_at: MonoNs, now: MonoNs) -> bool:
        """Judge a good answer on the spot; False when it has to go through `accept`."""
        ...

    def pieces(self, block: ReadBlock) -> Sequence[ReadBlock]:
        """What of `block`, which was refused, can be asked for alone; nothing when there is nothing smaller."""
        ...

    def split(self, block: ReadBlock) -> Sequence[ReadBlock]:
        """What to ask for instead of `block`, which was refused; nothing when there is nothing smaller."""
        ...

    async def accept(self, reply: Reply) -> None:
        """Take any reply; waits while the inbox is full."""
        ...


async def poll_line(
    schedule: PollSchedule,
    link: Fieldbus,
    clock: Clock,
    intake: Intake,
    advance: Callable[[], None],
    *,
    naps: Naps,
) -> None:
    """Read for ever. `naps` are shared by all lines; `advance` tells the watchdog of each turn: it stands for a read that ended or a nap that was due."""
    now = clock.mono()
    while True:
        turn = schedule.next_turn(now)
        if turn.due > now:
            started = await _sleep_until(turn, now, clock, naps, advance)
        else:
            await asyncio.sleep(0)  # a link that fails at once must not starve the other loops
            started = clock.mono()
        block = turn.block.id
        outcome = await link.read(turn.device.unit, turn.block, turn.timeout_ms)
        now = clock.mono()
        is_piece = turn.is_at_piece
        if isinstance(outcome, BlockFailed) and (less := _less(turn, outcome, intake)):
            ask = schedule.divide if turn.is_vouched else schedule.doubt
            ask(turn, less, started, now)
            advance()
            continue
        skipped = schedule.finish(turn, outcome, started, now)
        if is_piece:
            if isinstance(outcome, BlockFailed) and block not in skipped:
                await intake.accept(Reply(block, outcome, started, now))
        elif not (isinstance(outcome, BlockOk) and intake.take(block, outcome.data, started, now)):
            await intake.accept(Reply(block, outcome, started, now))
        for other in skipped:
            await intake.accept(Reply(other, outcome, started, now))
        advance()


def _less(turn: Turn, outcome: BlockFailed, intake: Intake) -> Sequence[ReadBlock]:
    """What is asked for instead, in the same poll: a piece, or parts once the device has given a piece."""
    if outcome.reason != ILLEGAL_ADDRESS or turn.is_at_piece or turn.is_silent:
        return ()
    return intake.split(turn.block) if turn.is_vouched else intake.pieces(turn.block)


async def _sleep_until(
    turn: Turn, now: MonoNs, clock: Clock, naps: Naps, advance: Callable[[], None]
) -> MonoNs:
    """Sleep whole milliseconds, rounded up: timers have no finer ones, and waking early means sleeping again. When it woke."""
    while (wait_ns := turn.due - now) > 0:
        await naps.nap(min(-(-wait_ns // NS_PER_MS), _NAP_MS))
        now = clock.mono()
        if now < turn.due:
            advance()
    return now
