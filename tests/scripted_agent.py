"""An agent of the tests' own: a store with a chain, sealed by the published language, and the sender's side of delivery.

It knows nothing of the product's agent. `Store` mints; `ScriptedAgent` keeps to the delivery protocol, section 2, in the
simplest way: it sends what follows `acked`, in order, and moves where acks say.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent.wire.chain import seed_hash
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Body,
    ClockState,
    Event,
    GuardChanged,
    GuardState,
    Observation,
    OpenOccurrence,
    Position,
    Priority,
    Quality,
    StateReport,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.status import Ack, GoneRange, Health, Predecessor

SITE, AGENT = "changyi", "gw-01"
WINDOW = 256


def ulid(number: int) -> str:
    """An epoch that no other number gives."""
    return f"01JD{number:022d}"


@dataclass
class Store:
    """An agent's store: one chain over all its epochs."""

    site: str = SITE
    agent: str = AGENT
    events: list[Event] = field(default_factory=list)
    epoch: str = ""
    clock_ms: int = 0
    boot: str = "boot-1"
    clock: ClockState = ClockState.SYNCED

    def start(self, epoch: str, *, clean_stop: bool = True) -> Event:
        """A new run: a new epoch, whose first event says what it follows."""
        self.epoch = epoch
        after = self.events[-1].position if self.events else None
        return self.add(AgentStarted(after, "1.0", "c0ffee", clean_stop))

    def add(self, body: Body) -> Event:
        """Mint the next event."""
        self.clock_ms += 1000
        last = self.events[-1] if self.events else None
        seq = last.seq + 1 if last is not None and last.epoch == self.epoch else 1
        prev = seed_hash(self.site, self.agent, self.epoch) if last is None else last.hash
        seconds, ms = divmod(self.clock_ms, 1000)
        at = f"2026-11-22T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}000Z"
        stamp = Stamp(self.site, self.agent, self.epoch, seq, self.boot, self.clock_ms, at, self.clock, prev)
        event = seal(stamp, body)
        self.events.append(event)
        return event

    def image(self) -> Store:
        """A copy of the file as it is now."""
        return copy.deepcopy(self)

    def index_of(self, position: Position) -> int | None:
        """Where a position lies in the chain."""
        return next((n for n, event in enumerate(self.events) if event.position == position), None)


@dataclass
class ScriptedAgent:
    """The sender. `pruned` events from the front are gone; `damaged` indices cannot be read.

    An older one does not say what a beginning that is gone came after (`says_after`).
    """

    store: Store
    acked: Position | None = None
    pruned: int = 0
    damaged: set[int] = field(default_factory=set)
    polls: int = 0
    says_after: bool = True

    def health(self) -> Health:
        """Its beat."""
        self.polls += 10
        events = self.store.events
        first = next(
            (event for n, event in enumerate(events) if n >= self.pruned and n not in self.damaged), None
        )
        return Health(
            online=True,
            epoch=self.store.epoch,
            boot=self.store.boot,
            seq=events[-1].seq,
            acked=self.acked,
            first=None if first is None else first.position,
            gone=tuple(self._gone(n) for n in sorted(self.damaged)),
            polls=self.polls,
        )

    def _gone(self, n: int) -> GoneRange:
        event = self.store.events[n]
        before = self.store.events[n - 1] if n and event.seq == 1 and self.says_after else None
        after = None if before is None else Predecessor(before.epoch, before.seq)
        return GoneRange(event.epoch, event.seq, event.seq, after)

    def to_send(self, window: int = WINDOW) -> Sequence[Event]:
        """What follows `acked`, in chain order, at most a window."""
        start = self.pruned
        if self.acked is not None:
            index = self.store.index_of(self.acked)
            assert index is not None, "it only moves to positions of its own chain"
            start = max(index + 1, self.pruned)
        readable = [n for n in range(start, len(self.store.events)) if n not in self.damaged]
        return [self.store.events[n] for n in readable[:window]]

    def take(self, ack: Ack) -> bool:
        """Move where the ack says (delivery protocol §2.2); True when it calls for a new epoch (§2.3)."""
        position = ack.position
        index = None if position is None else self.store.index_of(position)
        if position is not None and index is not None:
            here = None if self.acked is None else self.store.index_of(self.acked)
            if ack.reset or here is None or index > here:
                self.acked = position if index >= self.pruned - 1 else None
            return False
        if position is not None and position.epoch == self.store.epoch:
            return True
        if ack.reset and ack.to == self.store.epoch:
            self.acked = None
        return False


def guard_open(guard: str = "door-1") -> GuardChanged:
    """A guard was opened."""
    return GuardChanged("mixer-18", guard, GuardState.OPEN, GuardState.CLOSED, None, None, Quality.GOOD)


def note(text: str = "cycle") -> Observation:
    """A fact for the journal."""
    return Observation(text, {"n": 1})


def raised(occurrence: str, guard: str = "door-1", rule: str = "guard_open_motion") -> ViolationRaised:
    """A violation begins."""
    since = "2026-11-22T00:00:01.000000Z"
    return ViolationRaised(
        "mixer-18", guard, None, rule, Priority.P1, Basis.PROVEN, occurrence, since, None, {"grade": "C"}
    )


def cleared(occurrence: str, guard: str = "door-1", rule: str = "guard_open_motion") -> ViolationCleared:
    """A violation ends."""
    since = "2026-11-22T00:00:01.000000Z"
    return ViolationCleared(
        occurrence, rule, "mixer-18", guard, None, Priority.P1, since, "closed", 1000, 1000, 1000
    )


def listed(occurrence: str, guard: str = "door-1", rule: str = "guard_open_motion") -> OpenOccurrence:
    """An open occurrence as a report lists it."""
    since = "2026-11-22T00:00:01.000000Z"
    return OpenOccurrence(occurrence, rule, "mixer-18", guard, None, Priority.P1, Basis.PROVEN, since, None)


def report(*open_now: OpenOccurrence, part: int = 1, parts: int = 1, door: str = "c--g") -> StateReport:
    """A state report of one mixer with two doors."""
    guards = {"mixer-18": {"door-1": door, "door-2": "c--g"}}
    return StateReport(part, parts, guards, {"mixer-18": (False, None)}, tuple(open_now))
