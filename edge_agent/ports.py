"""What the runtime needs from the world: a clock, Modbus links, a store, a broker. Each adapter fits one of these.

Expected failure is a value with a reason; an exception means that the process must end (and be started again):

    BlockOk | BlockFailed                       a read
    Committed | StoreFull                       a commit            StoreBrokenError: storage failed, state unknown
    LinkUp, LinkDown, AckArrived, Answered      what the uplink reports, in order

The `Fieldbus` port has no write method on purpose: this product never changes a controller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edge_agent.domain.delivery import Placed, Span
from edge_agent.domain.findings import Draft
from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.units import MonoNs
from edge_agent.domain.wall import WallPair
from edge_agent.wire.event import Event, Json, Position
from edge_agent.wire.status import GoneRange


class Clock(Protocol):
    """Monotonic time for decisions, wall time for labels."""

    @property
    def boot(self) -> str:
        """Which boot of the machine this is: monotonic times of two boots are never compared."""
        ...

    def mono(self) -> MonoNs:
        """CLOCK_BOOTTIME."""
        ...

    def pair(self) -> WallPair:
        """Both clocks, read together."""
        ...

    def offset_ms(self) -> int | None:
        """What the wall clock is known to be off, None when unknown."""
        ...


@dataclass(frozen=True, slots=True)
class BlockOk:
    """The data bytes of a good answer, verified to belong to the request and to have the exact length."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BlockFailed:
    """No sample.

    `reason`: `timeout`, `exception:N`, `short`, `wrong_unit`, `wrong_function`, `bad_frame`, `link` (no connection), or on RTU
    framing `unconfirmed` (the two answers of a read that had to be made twice differ).
    """

    reason: str


BlockOutcome: TypeAlias = BlockOk | BlockFailed


class Fieldbus(Protocol):
    """One link to one or more Modbus devices, one request in flight. It reads, and cannot write."""

    @property
    def requests(self) -> Mapping[int, int]:
        """Requests sent since the start, by Modbus function code."""
        ...

    def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> Awaitable[BlockOutcome]:
        """Read one block. Never raises for anything a peer or a network can do."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class StoreBrokenError(Exception):
    """Storage failed in a way that leaves unknown what is on disk: end the process; the next one reads what is true."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Events on disk, in chain order; `first` is the place of the first, `tail` the store's last place now.

    `is_untold`: findings were lost, and no event tells that yet: the next commit that finds room does.
    `is_unhealed`: they were, and no state report that was made after it is stored yet, by this run or one before.
    """

    first: int
    tail: int
    events: tuple[Event, ...]
    is_untold: bool = False
    is_unhealed: bool = False


@dataclass(frozen=True, slots=True)
class StoreFull:
    """The disk is full: nothing was written. The same may be tried again later."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Findings that never reached the store: how many, and between which monotonic times."""

    dropped: int
    since: MonoNs
    until: MonoNs


@dataclass(frozen=True, slots=True)
class Reading:
    """Stored events by place, and the spans found unreadable meanwhile."""

    payloads: Mapping[int, bytes]
    damaged: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What health says about the store; `outbox_pct` counts never-acked events against `size_max_mb`."""

    first: Position | None
    gone: tuple[GoneRange, ...]
    outbox_pct: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """`first` is the place at which the chain begins now; `is_more`: another step would find something to do."""

    first: int
    is_more: bool


class Outbox(Protocol):
    """The agent's store: outbox, evidence ledger and memory, changed together or not at all."""

    async def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        """Mint and store these, with the memory that goes with them (None forgets a key), in one transaction."""
        ...

    async def note_waiting(self, waiting: Loss, pair: WallPair) -> None:
        """These wait in memory for room on the disk: to be told by the next run, should this one be killed."""
        ...

    async def begin_epoch(self, pair: WallPair) -> Committed | StoreFull:
        """A new epoch in the same store; its first event is `agent_started`."""
        ...

    async def place(self, position: Position) -> Placed:
        """How a position lies in the chain."""
        ...

    async def read(self, places: Sequence[int]) -> Reading:
        """The stored bytes at these places, each verified."""
        ...

    async def set_acked(self, acked: int, ever_acked: int) -> Position | None:
        """Keep how far the receiver has got; its position in return."""
        ...

    async def status(self) -> StoreStatus:
        """What health says about the store."""
        ...

    async def prune(self, acked: int, pair: WallPair) -> Pruned:
        """Delete some of what is too old or too much and was acked; `acked` is how far the receiver is known to be."""
        ...

    async def stop_clean(self, pair: WallPair) -> Committed | StoreFull:
        """A last checkpoint, and the mark that this run stopped cleanly."""
        ...


@dataclass(frozen=True, slots=True)
class Publication:
    """One MQTT message at QoS 1. `place` is set for an event of the stream; `expiry_s` is MQTT's Message Expiry."""

    topic: str
    payload: bytes
    retained: bool
    place: int | None = None
    expiry_s: int | None = None


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Connected and subscribed; at most `receive_maximum` QoS 1 publishes may be unanswered."""

    receive_maximum: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is gone, or could not be made."""

    reason: str


@dataclass(frozen=True, slots=True)
class AckArrived:
    """A message on the own `ack` topic: bytes, not yet believed."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The broker's PUBACK. `refusal` is None when it took the message; `is_heard`: and had somebody to give it to."""

    publication: Publication
    refusal: str | None
    is_heard: bool


UplinkReport: TypeAlias = LinkUp | LinkDown | AckArrived | Answered


class Uplink(Protocol):
    """A connection to the broker that is made again and again; one vendor client per attempt."""

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        """Begin to connect. Reports come on the event loop, in order; each `LinkUp` is followed by one `LinkDown`."""
        ...

    def publish(self, publication: Publication) -> None:
        """Hand over one message; it is answered, or the link goes down. Dropped when it is down already."""
        ...

    async def close(self) -> None:
        """Say goodbye (no last will) and stop."""
        ...
