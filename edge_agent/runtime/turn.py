"""What one device is asked next: its poll groups on their grids, and how far each has got.

Pure, like the schedule that owns it. A group is due at `phase + n × poll_ms` for ever; lateness never moves the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edge_agent.domain.plan import DevicePlan, ReadBlock
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, BlockId, MonoNs

SPREAD_MAX_MS: Final = 1000
"""First polls are spread over no more than this, however rarely they are due: nobody waits an hour for a first value."""

_SLOWEST_DECAY: Final = 64
"""The slowest answer of late comes down by one part in this with each faster answer: a hiccup is forgotten in a minute."""

_GOLDEN: Final = 0.6180339887498949


class PollGroup:
    """Blocks of one device at one rate: when they are due, and how far the present poll has got."""

    __slots__ = ("blocks", "due", "next_block", "poll_ns")

    def __init__(self, blocks: Sequence[ReadBlock], poll_ms: int, start: MonoNs, order: int) -> None:
        self.blocks = list(blocks)
        self.poll_ns = poll_ms * NS_PER_MS
        self.next_block = 0
        spread_ns = min(poll_ms, SPREAD_MAX_MS) * NS_PER_MS
        self.due = MonoNs(start + int(order * _GOLDEN % 1.0 * spread_ns))

    def end_poll(self, now: MonoNs) -> bool:
        """On to the next tick that is not over yet; whether any was missed."""
        self.next_block = 0
        self.due = MonoNs(self.due + self.poll_ns)
        late_ns = now - self.due
        if late_ns <= 0:
            return False
        self.due = MonoNs(self.due - late_ns // -self.poll_ns * self.poll_ns)
        return True

    def restart(self, now: MonoNs) -> None:
        """A full poll at once, as of the tick that was last; the grid stays."""
        self.next_block = 0
        self.due = MonoNs(self.due + (now - self.due) // self.poll_ns * self.poll_ns)


class Turn:
    """What a device is asked next: `block`, not before `due`, for at most `timeout_ms`.

    One object for each device, changed in place: valid until the schedule is asked again.
    """

    __slots__ = (
        "block",
        "device",
        "due",
        "errors",
        "full_probe_at",
        "group",
        "groups",
        "is_silent",
        "overruns",
        "piece",
        "pieces_asked",
        "polls",
        "request_due",
        "slowest_ns",
        "smallest",
        "spacing_ns",
        "timeout_ms",
        "vouched",
    )

    def __init__(self, device: DevicePlan, groups: list[PollGroup], start: MonoNs) -> None:
        self.device = device
        self.groups = groups
        self.group = min(groups, key=lambda group: group.due)
        self.block = self.group.blocks[0]
        self.smallest = _smallest(groups)
        self.due = self.group.due
        self.timeout_ms = device.timeout_ms
        self.spacing_ns = NS_PER_S // device.max_rps
        self.request_due = start
        self.full_probe_at = start
        self.is_silent = False
        self.piece: ReadBlock | None = None
        self.vouched: ReadBlock | None = None
        self.pieces_asked = 0
        self.slowest_ns = 0
        self.polls = 0
        self.errors = 0
        self.overruns = 0

    @property
    def is_at_piece(self) -> bool:
        """Whether `block` is a piece of the group's next block, which was refused."""
        return self.block is self.piece

    @property
    def is_vouched(self) -> bool:
        """Whether the device has just given a piece of `block`."""
        return self.block is self.vouched

    def doubt(self, pieces: Sequence[ReadBlock]) -> None:
        """`block` was refused: does the device give any of its `pieces`? One is asked for next, another the next time."""
        self.piece = pieces[self.pieces_asked % len(pieces)]
        self.pieces_asked += 1

    def vouch(self) -> None:
        """The piece was given: the whole is asked for again, and its refusal is believed."""
        self.vouched, self.piece = self.group.blocks[self.group.next_block], None

    def end_doubt(self) -> None:
        """The piece was not given, or the whole was."""
        if self.is_at_piece:
            self.piece = None
        elif self.is_vouched:
            self.vouched = None

    def divide(self, parts: Sequence[ReadBlock]) -> None:
        """`block` was refused: from now on its `parts` are asked for in its place, in the poll that is under way too."""
        for group in self.groups:
            if self.block in group.blocks:
                place = group.blocks.index(self.block)
                group.blocks[place : place + 1] = parts
        self.smallest = _smallest(self.groups)
        self.pieces_asked = 0
        self.end_doubt()

    def note_answer(self, took_ns: int) -> None:
        """An answer took so long, be it a gateway's that the device gave it none."""
        slowest_ns = self.slowest_ns
        if took_ns < slowest_ns:
            took_ns = slowest_ns - (slowest_ns - took_ns) // _SLOWEST_DECAY
        self.slowest_ns = took_ns

    def arm(self, now: MonoNs) -> None:
        """The next request of a device that answers: behind everyone who waits already."""
        due = min([group.due for group in self.groups]) if len(self.groups) > 1 else self.group.due
        self.due = max(due, self.request_due, now)

    def choose(self, now: MonoNs) -> None:
        """Of the groups that are due, the fastest; it may go between two blocks of a slower one."""
        if self.is_silent:
            self.block = self.smallest
            return
        if self.piece is not None:
            self.block = self.piece
            return
        if len(self.groups) > 1:
            at = max(now, self.due)
            self.group = next(group for group in self.groups if group.due <= at)
        self.block = self.group.blocks[self.group.next_block]

    def unasked(self, now: MonoNs) -> list[BlockId]:
        """The blocks that are not asked for because `block` met silence."""
        skipped: list[BlockId] = []
        for group in self.groups:
            if self.is_silent:
                blocks = group.blocks
            else:
                blocks = group.blocks[group.next_block :] if group.due <= now else []
            skipped += [block.id for block in blocks if block is not self.block]
        return skipped


def _smallest(groups: Sequence[PollGroup]) -> ReadBlock:
    return min((block for group in groups for block in group.blocks), key=lambda block: block.length_bytes)


def poll_groups(blocks: Sequence[ReadBlock], start: MonoNs, orders: Iterator[int]) -> list[PollGroup]:
    """The poll groups of one device, fastest first."""
    rates = sorted({block.poll_ms for block in blocks})
    return [
        PollGroup([block for block in blocks if block.poll_ms == poll_ms], poll_ms, start, next(orders))
        for poll_ms in rates
    ]
