"""What the model is made of: events, acks, beats and journals as values that exist once and are compared by identity.

Theory of operation. An exhaustive search asks "was I here before?" a million times. So every value is made by a cached
function: equal values are the same object, their hash is their address, and a state of the whole world is a small
tuple of such objects. An event *is* its history: it names the event before it, so two events are the same exactly
when their chains are, which is what a hash chain says on the wire. No hashes are computed here.

`twist` stands for content: it differs between copies of one store that live on (a snapshot that was resumed, an image
beside its original), and so do the events that they make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

Key: TypeAlias = tuple[int, int]
"""Epoch and seq. Epochs are numbered as they begin; nothing in the protocol may compare them."""


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One event; `n` is its place in its store's chain, `chain` all up to itself without it."""

    epoch: int
    seq: int
    twist: int
    chain_before: tuple[Event, ...]
    key: Key

    @property
    def n(self) -> int:
        """Its place in its store, from 1."""
        return len(self.chain_before) + 1

    @property
    def before(self) -> Event | None:
        """The event that its `prev` is the hash of; for seq 1 also its `after`."""
        return self.chain_before[-1] if self.chain_before else None

    def __repr__(self) -> str:
        return f"E{self.epoch}/{self.seq}" + "'" * self.twist


@cache
def event_after(chain: tuple[Event, ...], epoch: int, seq: int, twist: int) -> Event:
    """The one event that continues this chain so."""
    return Event(epoch, seq, twist, chain, (epoch, seq))


@dataclass(frozen=True, slots=True, eq=False)
class Ack:
    """Held up to `event` (None: nothing), in answer to epoch `to`; a `reset` moves an agent back, too."""

    to: int
    event: Event | None
    reset: bool

    def __repr__(self) -> str:
        return f"{'reset' if self.reset else 'ack'} {self.event or 'nothing'} to E{self.to}"


@cache
def ack_of(to: int, event: Event | None, reset: bool) -> Ack:
    """The one ack that says so."""
    return Ack(to, event, reset)


@dataclass(frozen=True, slots=True, eq=False)
class Beat:
    """A health, as far as delivery reads it: `gone` are the keys that the store cannot read any more."""

    epoch: int
    acked: Event | None
    first: Event | None
    gone: frozenset[Key]

    def __repr__(self) -> str:
        lost = f", gone {sorted(self.gone)}" if self.gone else ""
        return f"health of E{self.epoch} (acked {self.acked}, first {self.first}{lost})"


@cache
def beat_of(epoch: int, acked: Event | None, first: Event | None, gone: frozenset[Key]) -> Beat:
    """The one beat that says so."""
    return Beat(epoch, acked, first, gone)


class Gap(NamedTuple):
    """A final loss, stated in the journal right before the event that it made the next; `to_seq` None: open end."""

    epoch: int
    from_seq: int
    to_seq: int | None

    def __repr__(self) -> str:
        return f"lost E{self.epoch}/{self.from_seq} to {self.to_seq or 'whatever'}"

    def covers(self, key: Key) -> bool:
        """Whether `key` is stated as lost by it."""
        return (
            self.epoch == key[0]
            and self.from_seq <= key[1]
            and (self.to_seq is None or key[1] <= self.to_seq)
        )


class Refused(NamedTuple):
    """An event that got no place and lies in quarantine."""

    event: Event

    def __repr__(self) -> str:
        return f"quarantined {self.event}"


Entry: TypeAlias = Event | Gap | Refused


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """A gateway's disk: its entries in order, and what can be read off them. A backup of it is a beginning of it."""

    entries: tuple[Entry, ...]
    held: Mapping[Key, Event]
    last: Mapping[int, Event]
    newest: Event | None
    refused: frozenset[Event]
    gaps: tuple[Gap, ...]

    def is_stated(self, key: Key) -> bool:
        """Whether a gap names `key` as lost."""
        return any(gap.covers(key) for gap in self.gaps)

    def __repr__(self) -> str:
        return f"journal {list(self.entries)}"


@cache
def journal_of(entries: tuple[Entry, ...]) -> Journal:
    """The one journal with these entries. A key that comes twice is kept twice: the auditor shall see it."""
    events = [entry for entry in entries if isinstance(entry, Event)]
    return Journal(
        entries,
        held={event.key: event for event in events},
        last={event.epoch: event for event in events},
        newest=events[-1] if events else None,
        refused=frozenset(entry.event for entry in entries if isinstance(entry, Refused)),
        gaps=tuple(entry for entry in entries if isinstance(entry, Gap)),
    )


EMPTY_JOURNAL = journal_of(())


@dataclass(frozen=True, slots=True, eq=False)
class Agent:
    """A store and the process on it.

    On disk: `chain` (all that was ever stored; what lies before place `first` is pruned, `gone` are unreadable
    places), `acked`, and `ever`, the furthest that it was. In memory: `next`. That the disk learns of `acked` a little
    later makes no difference: a run that begins with an older one is a run whose last acks were lost.
    """

    chain: tuple[Event, ...]
    first: int
    ever: int
    gone: frozenset[int]
    acked: int
    next: int

    @property
    def tail(self) -> Event:
        """The last event stored."""
        return self.chain[-1]

    def __repr__(self) -> str:
        lost = f", gone {sorted(self.gone)}" if self.gone else ""
        return f"store {list(self.chain)} from {self.first}{lost}, acked {self.acked}, next {self.next}"


@cache
def agent_of(
    chain: tuple[Event, ...], first: int, ever: int, gone: frozenset[int], acked: int, next_place: int
) -> Agent:
    """The one agent that stands so; places that cannot be sent are skipped."""
    next_place = max(next_place, first)
    while next_place in gone:
        next_place += 1
    return Agent(chain, first, ever, gone, acked, next_place)
