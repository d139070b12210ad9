"""One open violation: its identity, its durations, and how it survives the process.

Theory of operation. An occurrence keeps its id from raise to clear, over restarts and reboots. Its duration runs on
the monotonic clock from `since` to the clearing sample. Of that, `known_ns` counts only time in which the condition
could be judged; time that was unknown, or in which no agent ran, lies between the shortest and the longest duration.
A restart in the same boot goes on with the same clock; another boot has another clock, and then the longest duration
can only be read off the wall. A wall clock that was not synchronised at both ends measures nothing (it may have begun
in 1970): then only what was seen is counted.

Memory holds whole microseconds: nanoseconds since boot pass 2^53 after 104 days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from edge_agent.domain.units import NS_PER_MS, MonoNs
from edge_agent.domain.wall import WallPair, parse_rfc3339
from edge_agent.wire.event import Basis, Json, OpenOccurrence, Priority, ViolationCleared
from edge_agent.wire.structure import MisfitError, plain, structure

OPEN_KEY_PREFIX = "open/"
"""Memory keys of open occurrences begin so."""

NS_PER_US = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule judges: a machine and guard, a machine, or a device."""

    machine: str | None
    guard: str | None
    device: str | None

    def memory_key(self, rule: str) -> str:
        """Where the memory keeps the one open occurrence that a rule can have here."""
        return OPEN_KEY_PREFIX + "/".join(
            part or "-" for part in (rule, self.machine, self.guard, self.device)
        )


@dataclass(slots=True)
class Occurrence:
    """An open violation. `since_mono` is None when it began in another boot; `known_from` while it is being judged.

    `is_since_synced`: whether the wall clock was synchronised when it labelled `since`.
    `stage` is the rule's own phase (R09: the cycle; R22: whether "unreset" was told); `guards` what R29 has listed.
    """

    id: str
    rule: str
    place: Place
    priority: Priority
    raised_priority: Priority
    basis: Basis
    since: str
    since_mono: MonoNs | None
    hidden_by: str | None
    known_ns: int
    known_from: MonoNs | None
    stage: int = 0
    guards: tuple[str, ...] = ()
    guards_count: int = 0
    is_since_synced: bool = False

    def known_until(self, now: MonoNs) -> int:
        """Nanoseconds for which it is known to have lasted."""
        return self.known_ns + (0 if self.known_from is None else max(0, now - self.known_from))

    def longest_ns(self, now: MonoNs, wall: WallPair) -> int:
        """Nanoseconds from its beginning to `now`; by the wall where the monotonic clock is another boot's."""
        if self.since_mono is not None:
            return now - self.since_mono
        known_ns = self.known_until(now)
        if not (self.is_since_synced and wall.synced):
            return known_ns
        return max(wall.utc_at(now) - parse_rfc3339(self.since), known_ns)

    def listed(self) -> OpenOccurrence:
        """How a state report lists it."""
        place = self.place
        return OpenOccurrence(
            self.id,
            self.rule,
            place.machine,
            place.guard,
            place.device,
            self.priority,
            self.basis,
            self.since,
            self.hidden_by,
        )

    def cleared(self, now: MonoNs, wall: WallPair, reason: str) -> ViolationCleared:
        """The event that ends it at `now`."""
        longest_ms = self.longest_ns(now, wall) // NS_PER_MS
        shortest_ms = min(self.known_until(now) // NS_PER_MS, longest_ms)
        place = self.place
        return ViolationCleared(
            self.id,
            self.rule,
            place.machine,
            place.guard,
            place.device,
            self.raised_priority,
            self.since,
            reason,
            longest_ms,
            shortest_ms,
            longest_ms,
        )

    def remembered(self, now: MonoNs, boot: str) -> Json:
        """What the memory keeps of it."""
        place = self.place
        return plain(
            _Memory(
                self.id,
                self.rule,
                place.machine,
                place.guard,
                place.device,
                self.priority,
                self.raised_priority,
                self.basis,
                self.since,
                None if self.since_mono is None else self.since_mono // NS_PER_US,
                boot if self.since_mono is not None else "",
                self.known_until(now) // NS_PER_US,
                self.hidden_by,
                self.stage,
                self.guards,
                self.guards_count,
                self.is_since_synced,
            )
        )


@dataclass(frozen=True, slots=True)
class _Memory:
    """The stored form of an open occurrence."""

    id: str
    rule: str
    machine: str | None
    guard: str | None
    device: str | None
    priority: Priority
    raised_priority: Priority
    basis: Basis
    since: str
    since_us: int | None
    boot: str
    known_us: int
    hidden_by: str | None
    stage: int
    guards: tuple[str, ...]
    guards_count: int
    is_since_synced: bool = False


def recalled(memory: Json, boot: str) -> Occurrence | None:
    """The open occurrence that an earlier run remembered, or None when the memory holds none that can be read."""
    try:
        kept = cast("_Memory", structure(_Memory, memory, "memory"))
        parse_rfc3339(kept.since)
    except (MisfitError, ValueError):
        return None
    same_clock = kept.boot == boot and kept.since_us is not None
    return Occurrence(
        id=kept.id,
        rule=kept.rule,
        place=Place(kept.machine, kept.guard, kept.device),
        priority=kept.priority,
        raised_priority=kept.raised_priority,
        basis=kept.basis,
        since=kept.since,
        since_mono=MonoNs((kept.since_us or 0) * NS_PER_US) if same_clock else None,
        hidden_by=kept.hidden_by,
        known_ns=kept.known_us * NS_PER_US,
        known_from=None,
        stage=kept.stage,
        guards=kept.guards,
        guards_count=kept.guards_count,
        is_since_synced=kept.is_since_synced,
    )
