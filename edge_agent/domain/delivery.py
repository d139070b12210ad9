"""The sender: which stored events go out now, and how far they are known to be safe. Pure; the delivery protocol §2.

Theory of operation. The store's events stand in one chain, numbered by their place `n` in it (1, 2, 3 … across
epochs). `acked` is the furthest place that the gateway has said to hold (0: none). Events are sent strictly in order
from `acked + 1` (go-back-N), at most `EVENTS_AHEAD_MAX` beyond it, within the broker's Receive Maximum. An ack moves
`acked` forward; one that is a `reset` moves it back too; everything else about an ack is somebody else's or late.

    disconnected ──connect──▶ waiting (≤ 1 s, for the retained ack) ──ack or timer──▶ sending
          ▲                                                                             │
          └────────────────────────────── disconnect ◀──────────────────────────────────┘

What an ack does, by how its position lies in the own chain (`Placed`, asked of the store by the caller):

    names nothing       reset to the present epoch → back to first        otherwise ignored
    held, same hash     forward if further; back if a reset; else nothing
    other hash, beyond  of the present epoch → fork                       otherwise as unknown
    unknown             reset to the present epoch → back to first        otherwise ignored

After a fork the caller begins a new epoch in the same store. What is un-acked of the old one is sent all the same: it
lands in the gateway's quarantine, twice perhaps, but the broker may have lost it the first time.

Without progress the sender goes back to `acked` after 2, 4, … 30 s; at once after a reconnect or a reset, and when
somebody listens again after an event that nobody heard (MQTT 5 says so in its PUBACK: a gateway that was away for a
moment is not kept waiting for the next of those pauses), but not twice within 2 s, since a listener may come and go with
every event; never because an equal ack came again, so that late duplicates cannot start a storm. Places that can no longer
be read (`gone`) or were pruned are skipped and not counted. In broker mode PUBACKs, which come in order, do what acks do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.domain.units import NS_PER_S, MonoNs
from edge_agent.wire.status import Ack

EVENTS_AHEAD_MAX = 256
"""Un-acked events on their way at most: what a broker may have to hold while the gateway is down."""

RETAINED_ACK_WAIT_NS = 1 * NS_PER_S
"""After a connect the retained ack is waited for this long: it saves sending what is known to be held."""

RESEND_FIRST_NS = 2 * NS_PER_S
"""Without progress, sent again after this; a healthy gateway acks within milliseconds."""

RESEND_MAX_NS = 30 * NS_PER_S
"""… doubling up to this, so that a gateway that comes back is served within half a minute at worst."""

REPORT_OUTBOX_MAX_PCT = 95
"""Above this filling no state report is made: the room left belongs to findings."""


class DeliveryMode(StrEnum):
    """Whose word makes an event safe: the gateway's journal, or (plants without a gateway) the broker's PUBACK."""

    GATEWAY = "gateway"
    BROKER = "broker"


class Match(StrEnum):
    """How a position lies in the own chain."""

    HELD = "held"
    OTHER_HASH = "other_hash"
    BEYOND = "beyond"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Placed:
    """A position looked up in the store: its place when held or differing, the epoch's end when beyond, else 0."""

    match: Match
    n: int = 0


NOT_PLACED = Placed(Match.UNKNOWN)


class AckOutcome(StrEnum):
    """What an ack did; `FORKED` asks the caller for an observation `epoch_fork` and a new epoch."""

    IGNORED = "ignored"
    FORWARD = "forward"
    BACK = "back"
    FORKED = "forked"


@dataclass(frozen=True, slots=True)
class Span:
    """Places `first` to `last`, both included."""

    first: int
    last: int


class Sender:
    """The sending side of one store, over all its connections.

    `first` and `tail` are the ends of the stored chain (tail 0: empty), `acked` as kept in the store.
    """

    def __init__(
        self, mode: DeliveryMode, epoch: str, *, first: int = 1, tail: int = 0, acked: int = 0
    ) -> None:
        assert 0 <= acked <= tail
        self._mode = mode
        self._epoch = epoch
        self._first = first
        self._tail = tail
        self._acked = acked
        self._ever_acked = acked
        self._next = acked + 1
        self._gone: list[Span] = []
        self._receive_max = 0
        self._in_flight = 0
        self._ready_at: MonoNs | None = None
        self._resend_at: MonoNs | None = None
        self._resend_after_ns = RESEND_FIRST_NS
        self._is_unheard = False
        self._deaf_until: MonoNs | None = None

    @property
    def acked(self) -> int:
        """The furthest place known to be held by the receiver, 0 for none: what health shows and the store keeps."""
        return self._acked

    @property
    def ever_acked(self) -> int:
        """The furthest place that was ever acked: a reset does not take it back (room in the outbox counts by it)."""
        return self._ever_acked

    @property
    def tail(self) -> int:
        """The last stored place."""
        return self._tail

    @property
    def free_slots(self) -> int:
        """Publishes of any kind that the broker's Receive Maximum still allows."""
        return self._receive_max - self._in_flight

    @property
    def receive_maximum(self) -> int:
        """The broker's Receive Maximum, 0 while disconnected."""
        return self._receive_max

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to send on."""
        return self._ready_at is not None

    def connect(self, receive_maximum: int, now: MonoNs) -> None:
        """A connection stands: wait for the retained ack, then go back to `acked`."""
        assert receive_maximum > 0
        self._receive_max = receive_maximum
        self._in_flight = 0
        waits = self._mode is DeliveryMode.GATEWAY
        self._ready_at = MonoNs(now + RETAINED_ACK_WAIT_NS) if waits else now
        self._go_back()

    def disconnect(self) -> None:
        """The connection is gone; whatever was in flight is unknown."""
        self._receive_max = 0
        self._in_flight = 0
        self._ready_at = None
        self._resend_at = None

    def extend(self, tail: int) -> None:
        """Events up to place `tail` are stored (committed)."""
        assert tail >= self._tail
        self._tail = tail

    def begin_epoch(self, epoch: str) -> None:
        """The store goes on in another epoch (after a fork)."""
        self._epoch = epoch

    def prune(self, first: int) -> None:
        """The chain begins at place `first` now: what lay before it is sent no more."""
        self._first = first
        self._gone = [gone for gone in self._gone if gone.last >= first]

    def lose(self, span: Span) -> None:
        """The events of this span cannot be read any more: skip them from now on."""
        assert span.first <= span.last
        self._gone.append(span)
        self._gone.sort(key=lambda gone: gone.first)

    def count_publish(self) -> None:
        """Something else than an event was published at QoS 1: it takes one of the broker's slots."""
        assert self.free_slots > 0
        self._in_flight += 1

    def take_sends(self, now: MonoNs) -> list[int]:
        """The places to publish now, in order; they count as in flight from here on."""
        if self._ready_at is None or now < self._ready_at:
            return []
        sends: list[int] = []
        room = min(self.free_slots, EVENTS_AHEAD_MAX - self._count_ahead())
        while len(sends) < room:
            place = self._skip_gone(self._next)
            if place > self._tail:
                break
            sends.append(place)
            self._next = place + 1
        self._in_flight += len(sends)
        if sends and self._resend_at is None:
            self._resend_at = MonoNs(now + self._resend_after_ns)
        return sends

    def receive_puback(self, place: int | None, now: MonoNs, *, is_delivered: bool) -> bool:
        """The broker answered a publish (an event's place, None for another kind); True when `acked` moved.

        `is_delivered` is False for a refusal and for "no matching subscribers" (MQTT 5 reason code 0x10): such an
        event is simply still un-acked.
        """
        self.release_slot()
        if place is not None and not is_delivered:
            self._is_unheard = True
        elif place is not None:
            self.note_listener(now)
        if self._mode is DeliveryMode.GATEWAY or place is None or not is_delivered:
            return False
        if place != self._skip_gone(self._acked + 1) or place >= self._next:
            return False
        self._forward(place, now)
        return True

    def release_slot(self) -> None:
        """A publish that was counted is over: its slot is free."""
        self._in_flight = max(0, self._in_flight - 1)

    def note_listener(self, now: MonoNs) -> None:
        """Somebody heard an event or a health: what nobody heard before is sent again, at once if that was not so just now.

        A listener that comes and goes would else be sent the whole window with each event that it hears, and each of
        those windows would bring several more.
        """
        if not self._is_unheard or (self._deaf_until is not None and now < self._deaf_until):
            return
        self._is_unheard = False
        if self.is_connected and self._mode is DeliveryMode.GATEWAY:
            self._deaf_until = MonoNs(now + RESEND_FIRST_NS)
            self._go_back()

    def receive_ack(self, ack: Ack, placed: Placed, now: MonoNs) -> AckOutcome:
        """An ack came, retained or live; `placed` is the store's answer about its position."""
        if self._mode is DeliveryMode.BROKER:
            return AckOutcome.IGNORED
        if self._ready_at is not None:
            self._ready_at = min(self._ready_at, now)
        is_reset_here = ack.reset and ack.to == self._epoch
        match placed.match:
            case Match.HELD if ack.epoch is not None:
                return self._move(placed.n, now, may_go_back=ack.reset)
            case Match.OTHER_HASH | Match.BEYOND if ack.epoch == self._epoch:
                self._go_back()
                return AckOutcome.FORKED
            case _ if is_reset_here and self._acked > 0:
                return self._move(0, now, may_go_back=True)
            case _:
                return AckOutcome.IGNORED

    def handle_timer(self, now: MonoNs) -> None:
        """Go back to `acked` when nothing moved for too long."""
        if self._resend_at is not None and now >= self._resend_at:
            self._resend_after_ns = min(2 * self._resend_after_ns, RESEND_MAX_NS)
            after = self._resend_after_ns
            self._go_back()
            self._resend_after_ns = after

    def next_deadline(self, now: MonoNs) -> MonoNs | None:
        """When to look again: the end of the wait for the retained ack, or the next resend; None while disconnected."""
        if self._ready_at is not None and now < self._ready_at:
            return self._ready_at
        return self._resend_at

    def _move(self, place: int, now: MonoNs, *, may_go_back: bool) -> AckOutcome:
        if place > self._acked:
            self._forward(place, now)
            return AckOutcome.FORWARD
        if place < self._acked and may_go_back:
            self._acked = place
            self._go_back()
            return AckOutcome.BACK
        return AckOutcome.IGNORED

    def _forward(self, place: int, now: MonoNs) -> None:
        self._acked = place
        self._ever_acked = max(self._ever_acked, place)
        self._next = max(self._next, place + 1)
        self._resend_after_ns = RESEND_FIRST_NS
        is_waiting = self.is_connected and self._count_ahead() > 0
        self._resend_at = MonoNs(now + RESEND_FIRST_NS) if is_waiting else None

    def _go_back(self) -> None:
        """Send again from `acked`; the next send starts the clock again."""
        self._next = self._acked + 1
        self._resend_at = None
        self._resend_after_ns = RESEND_FIRST_NS

    def _count_ahead(self) -> int:
        """Sent and not yet acked, without what is gone or pruned."""
        low, high = max(self._acked + 1, self._first), self._next - 1
        lost = sum(max(0, min(gone.last, high) - max(gone.first, low) + 1) for gone in self._gone)
        return max(0, high - low + 1 - lost)

    def _skip_gone(self, place: int) -> int:
        return skip_spans(max(place, self._first), self._gone)


REPORT_AGAIN_S = 10
"""Devices that are seen for the first time one after the other share a report: one of a large plant takes megabytes."""


class ReportPolicy:
    """When a state report is due: after each connect and each overflow, then every `period_s`; never two un-acked.

    The first of a run waits until every device has answered or gone stale, since a report of unknowns heals nothing. What
    was unseen in it still (a heartbeat that had not moved yet, a device that was away) is reported once it is seen.
    """

    def __init__(self, period_s: int) -> None:
        self._period_ns = period_s * NS_PER_S
        self._is_wanted = False
        self._again_at: MonoNs | None = None
        self._sooner_at = MonoNs(0)
        self._unseen = 0
        self._last_part = 0

    def connect(self) -> None:
        """A connection stands."""
        self._is_wanted = True

    def overflow(self) -> None:
        """Something found no room in the store: only a report heals a raise or a clear that nobody will ever read."""
        self._is_wanted = True

    def reported(self, last_part: int, now: MonoNs, unseen: int) -> None:
        """A report is stored; `last_part` is the place of its last part, `unseen` how many blocks of it were never good."""
        self._is_wanted = False
        self._last_part = last_part
        self._again_at = MonoNs(now + self._period_ns)
        self._sooner_at = MonoNs(now + REPORT_AGAIN_S * NS_PER_S)
        self._unseen = unseen

    def is_due(self, sender: Sender, now: MonoNs, *, is_settled: bool, unseen: int, outbox_pct: int) -> bool:
        """Whether to make one now."""
        is_news = unseen < self._unseen and now >= self._sooner_at
        is_time = self._is_wanted or is_news or (self._again_at is not None and now >= self._again_at)
        is_pending = self._last_part > sender.acked
        return is_time and is_settled and not is_pending and outbox_pct <= REPORT_OUTBOX_MAX_PCT


def skip_spans(place: int, ascending: Iterable[Span]) -> int:
    """The first place at or after `place` that none of these spans covers."""
    for span in ascending:
        if span.first <= place <= span.last:
            place = span.last + 1
    return place


def spans(places: Iterable[int]) -> list[Span]:
    """Ascending places as spans."""
    found: list[Span] = []
    for place in places:
        if found and found[-1].last == place - 1:
            found[-1] = Span(found[-1].first, place)
        else:
            found.append(Span(place, place))
    return found
