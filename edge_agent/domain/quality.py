"""Quality and age, kept per block and read by the signals that live in it.

A block's supply goes

    PENDING ──good reply──▶ GOOD ◀──good reply── LOST
       │                     │ ▲                  ▲
       └── stale_ms ─────────┼─┼── stale_ms ──────┘
                             ▼ │ good reply, heartbeat moving again
                            FROZEN

Age counts from the *request* of the last good reply, since the content may be as old as that. A failed read is no
sample: it moves nothing but the name that the loss will have (`comm_bad` instead of `stale`). PENDING is the time
before the first reply of a run: unknown, but nothing to complain about until `stale_ms` have gone by.

Source: the outside contract, section 2 ("Unknown").
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from enum import Enum, auto
from typing import TypeAlias

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.wire.event import Quality

BadReason: TypeAlias = str
"""Why a read gave no sample: `timeout`, `exception:N`, `short`, `link`, … as the fieldbus names it."""

SHORT: BadReason = "short"
"""A reply of the wrong length: refused, whoever lets it through."""


class Supply(Enum):
    """Whether a block's content may be used."""

    PENDING = auto()
    GOOD = auto()
    LOST = auto()
    FROZEN = auto()


_SEVERITY: tuple[Quality, ...] = (
    Quality.GOOD,
    Quality.SIMULATED,
    Quality.CONFLICT,
    Quality.STALE,
    Quality.COMM_BAD,
    Quality.FROZEN,
    Quality.CONFIG_BAD,
)
"""From best to worst: what needs the more deliberate repair is worse."""


def worst(qualities: Iterable[Quality]) -> Quality:
    """The worst of several qualities; good for none."""
    return max(qualities, key=_SEVERITY.index, default=Quality.GOOD)


class BlockState:
    """One block as last read; while `quiet`, an equal reply only moves `requested_at` (the hot path).

    `has_proof`: a presence check is read here. `is_unvouched`: nobody can read its device's heartbeat. `is_unproven`: what
    it holds was read before a presence check held. `expected_at` is when a reply was asked for that has come and waits to
    be received, or when polling began. `read_before` is when it was asked for before the last answer that was looked at;
    None for the first of a run.
    """

    __slots__ = (
        "data",
        "debouncing",
        "expected_at",
        "failed_at",
        "failure",
        "has_heartbeat",
        "has_proof",
        "is_unproven",
        "is_unvouched",
        "key",
        "plan",
        "quiet",
        "read_before",
        "requested_at",
        "stale_ns",
        "supply",
        "trusted_until",
        "watchers",
    )

    def __init__(self, plan: ReadBlock, start: MonoNs, *, has_heartbeat: bool) -> None:
        self.plan = plan
        self.key = _key(plan)
        self.stale_ns = plan.stale_ms * NS_PER_MS
        self.requested_at = start
        self.expected_at = start
        self.data: bytes | None = None
        self.supply = Supply.PENDING
        self.trusted_until = start  # meaningful while the supply is not good
        self.failure: BadReason | None = None
        self.failed_at: MonoNs | None = None  # while its content stood
        self.has_heartbeat = has_heartbeat
        self.has_proof = False
        self.is_unvouched = False
        self.is_unproven = False
        self.read_before: MonoNs | None = None
        self.watchers: dict[int, None] = {}  # indices of the nodes that watch it; never in an order
        self.debouncing = 0
        self.quiet = False

    def part(self, plan: ReadBlock, *, has_heartbeat: bool) -> BlockState:
        """A state of its own for `plan`, which is a piece of this block: it knows what this one knows.

        Nothing lives in it yet, and nobody watches it.
        """
        part = copy(self)
        part.plan, part.key, part.has_heartbeat = plan, _key(plan), has_heartbeat
        part.data = None if self.data is None else _piece(self.plan, plan, self.data)
        part.watchers, part.debouncing = {}, 0
        return part

    @property
    def stale_at(self) -> MonoNs:
        """When its content becomes unknown unless a younger reply comes."""
        return MonoNs(max(self.requested_at, self.expected_at) + self.stale_ns)

    @property
    def quality(self) -> Quality:
        """What a signal that lives here has at best."""
        match self.supply:
            case Supply.GOOD:
                return Quality.GOOD
            case Supply.FROZEN:
                return Quality.FROZEN
            case _:
                return Quality.STALE if self.failure is None else Quality.COMM_BAD

    @property
    def is_pending(self) -> bool:
        """Whether this run has neither had a reply nor waited long enough for one."""
        return self.supply is Supply.PENDING

    def settle_quiet(self) -> None:
        """Work out `quiet` again after anything it depends on has changed.

        A heartbeat's block is never quiet: that its counter does *not* move is the finding. Nor is one whose replies
        must be doubted.
        """
        self.quiet = (
            self.supply is Supply.GOOD
            and self.failure is None
            and not self.watchers
            and self.debouncing == 0
            and not self.has_heartbeat
            and not self.is_unvouched
            and not self.is_unproven
        )

    @property
    def is_overdue(self) -> bool:
        """Whether its last read failed while its content still stands: what it says now is a guess.

        Once the content is unknown it is no guess any more, and what is true in spite of it is proven without it.
        """
        return self.failure is not None and self.supply is Supply.GOOD

    def missed_since(self, since: MonoNs) -> bool:
        """Whether a read has failed at or after `since` while its content stood."""
        return self.failed_at is not None and self.failed_at >= since and self.supply is Supply.GOOD


def _key(plan: ReadBlock) -> str:
    return f"{plan.device}/{plan.table.value}/{plan.start}"


def _piece(whole: ReadBlock, part: ReadBlock, data: bytes) -> bytes:
    """What `part` would have been answered, cut out of the answer to `whole`."""
    offset = part.start - whole.start
    if not whole.table.is_bits:
        return data[offset * 2 : (offset + part.count) * 2]
    bits = int.from_bytes(data, "little") >> offset & ((1 << part.count) - 1)
    return bits.to_bytes(part.length_bytes, "little")


def trusted_until(blocks: Iterable[BlockState], now: MonoNs) -> MonoNs:
    """Up to when all of these could be believed: now, or where the first of the blind ones was last told the truth."""
    return min([now, *(block.trusted_until for block in blocks if block.supply is not Supply.GOOD)])


def age_ms(block: BlockState, now: MonoNs) -> int | None:
    """Milliseconds since the request of the last good reply; None before the first."""
    return None if block.data is None else (now - block.requested_at) // NS_PER_MS


def raw_hex(block: BlockState, number: int, count: int) -> str:
    """`count` items from PDU address `number` as hex: whole registers, or the bytes that hold the bits."""
    if block.data is None:
        return ""
    offset = number - block.plan.start
    if block.plan.table in (Table.COIL, Table.DISCRETE_INPUT):
        return block.data[offset // 8 : (offset + count + 7) // 8].hex()
    return block.data[offset * 2 : (offset + count) * 2].hex()
