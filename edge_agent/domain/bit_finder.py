"""Which bit is this guard? Someone opens and closes it three times, and the finder names the bits that did the same.

Theory of operation. Every watched block is one large integer, so that a sample is compared by one XOR and only bits
that ever changed are remembered. Changes of a bit less than
`SETTLE_NS` apart are one movement with bounce; a movement
that ends where it began is a glitch. A bit *follows* the guard when it made exactly `times` excursions from where it
rested and back, and has been at rest since. What moves by itself tells itself apart: a heartbeat moves too often, and the bits above it
move only when it does (a carry); a counter of openings never comes back (but its register rose by exactly `times`,
which is worth saying).

    rests at 1     ────┐  ┌────┐ ┌──┐  ┌────     closed = 1
                       └──┘    └─┘  └──┘
                        1       2    3  opened

The guard must be closed at the beginning: what a bit shows then is what "closed" looks like. The bit that moved first is
the likeliest contact; others that follow may be the second channel, the lock, a copy, or a machine that stops.

Bounce is measured as far as the polls show it: shorter chatter falls between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from edge_agent.domain.plan import Table
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, MonoNs

SETTLE_NS: Final = 250 * NS_PER_MS
"""Changes closer together are bounce of one movement: contacts settle within tens of ms, no one moves a door faster."""

BOUNCE_MAX_NS: Final = 500 * NS_PER_MS
"""What chatters longer than this is no contact but a signal that moves by itself, a heartbeat for instance."""

REST_NS: Final = 2 * NS_PER_S
"""How long nothing likely may move before the finder speaks: a second channel or a lock may come late, and a heartbeat
of a second must have shown itself."""

CHANGES_MAX: Final = 2000
"""Changes remembered of one bit; more is a signal of its own, not a door opened three times."""

WORD_BITS: Final = 16


@dataclass(frozen=True, slots=True, order=True)
class BitPlace:
    """One bit: a coil or discrete input (`bit` None), or a bit of a register, 0 = least significant."""

    table: Table
    number: int
    bit: int | None

    def __str__(self) -> str:
        """As in an address of the configuration, without the device."""
        suffix = "" if self.bit is None else f".{self.bit}"
        return f"{self.table.value}/{self.number}{suffix}"


@dataclass(frozen=True, slots=True)
class Follower:
    """A bit that did what the guard did. `bounce_ms` is the longest chatter seen; `first_at` its first movement."""

    place: BitPlace
    is_one_when_closed: bool
    bounce_ms: int
    first_at: MonoNs


@dataclass(frozen=True, slots=True)
class Found:
    """Followers, first mover first; registers that rose by exactly the number of openings; bits that never rest."""

    followers: tuple[Follower, ...]
    counters: tuple[str, ...]
    restless: tuple[BitPlace, ...]


@dataclass(slots=True)
class _Track:
    """One bit that has changed: where it rested, and when it changed."""

    rest: int
    changes: list[MonoNs] = field(default_factory=list)

    def groups(self) -> list[list[MonoNs]]:
        """The changes, those that belong together in one group."""
        groups: list[list[MonoNs]] = []
        for at in self.changes:
            if groups and at - groups[-1][-1] < SETTLE_NS:
                groups[-1].append(at)
            else:
                groups.append([at])
        return groups

    def movements(self) -> list[tuple[MonoNs, MonoNs]]:
        """Real movements (first change, last change), bounce merged, glitches left out."""
        return [(group[0], group[-1]) for group in self.groups() if len(group) % 2]

    def is_restless(self, times: int) -> bool:
        """Whether it moves more often, or chatters longer, than a guard opened `times` times."""
        groups = self.groups()
        return (
            len(self.changes) == CHANGES_MAX
            or len(self.movements()) > 2 * times
            or any(group[-1] - group[0] > BOUNCE_MAX_NS for group in groups)
        )


class BitFinder:
    """Feed it every sample of every watched block; ask `found` after each. `times` is how often the guard is opened."""

    def __init__(self, times: int = 3) -> None:
        self._times = times
        self._first: dict[tuple[Table, int], int] = {}
        self._last: dict[tuple[Table, int], int] = {}
        self._tracks: dict[BitPlace, _Track] = {}

    def feed(self, table: Table, start: int, data: bytes, now: MonoNs) -> None:
        """The data bytes of a good answer that began at PDU address `start`."""
        image, key = _image(table, data), (table, start)
        before = self._last.setdefault(key, image)
        self._first.setdefault(key, image)
        self._last[key] = image
        for index in _bits(before ^ image):
            place = _place(table, start, index)
            track = self._tracks.setdefault(place, _Track(rest=before >> index & 1))
            if len(track.changes) < CHANGES_MAX:
                track.changes.append(now)

    @property
    def openings(self) -> int:
        """How many complete excursions the best bit has made so far."""
        return max((len(track.movements()) // 2 for track in self._likely().values()), default=0)

    def found(self, now: MonoNs) -> Found | None:
        """The result, once some bit has made all excursions and no likely one is still moving."""
        likely = self._likely()
        if any(now - track.changes[-1] < REST_NS for track in likely.values()):
            return None
        followers = [
            self._follower(place, track)
            for place, track in likely.items()
            if len(track.movements()) == 2 * self._times
        ]
        if not followers:
            return None
        return Found(
            tuple(sorted(followers, key=lambda item: (item.first_at, item.place))),
            tuple(self._counters()),
            tuple(sorted(place for place in self._tracks if place not in likely)),
        )

    def _likely(self) -> dict[BitPlace, _Track]:
        """The bits that may be the guard: those that do not move by themselves."""
        restless: dict[tuple[Table, int], set[MonoNs]] = {}
        for place, track in self._tracks.items():
            if track.is_restless(self._times):
                restless.setdefault((place.table, place.number), set()).update(track.changes)
        return {
            place: track
            for place, track in self._tracks.items()
            if not restless.get((place.table, place.number), set()).issuperset(track.changes)
        }

    def _follower(self, place: BitPlace, track: _Track) -> Follower:
        movements = track.movements()
        bounce_ms = max((last - first) // NS_PER_MS for first, last in movements)
        return Follower(place, bool(track.rest), bounce_ms, movements[0][0])

    def _counters(self) -> Iterator[str]:
        """Registers whose value rose by the number of openings."""
        for (table, start), first in self._first.items():
            if table.is_bits:
                continue
            last = self._last[table, start]
            for index in range(max(first.bit_length(), last.bit_length()) // WORD_BITS + 1):
                before, after = (image >> index * WORD_BITS & 0xFFFF for image in (first, last))
                if (after - before) & 0xFFFF == self._times:
                    yield f"{table.value}/{start + index}"


def _image(table: Table, data: bytes) -> int:
    """All bits of an answer as one integer: item i at bit i, or register i at bits 16i to 16i+15."""
    if table.is_bits:
        return int.from_bytes(data, "little")
    swapped = bytearray(len(data))
    swapped[0::2], swapped[1::2] = data[1::2], data[0::2]
    return int.from_bytes(swapped, "little")


def _place(table: Table, start: int, index: int) -> BitPlace:
    if table.is_bits:
        return BitPlace(table, start + index, None)
    return BitPlace(table, start + index // WORD_BITS, index % WORD_BITS)


def _bits(image: int) -> Iterator[int]:
    """The places of the ones, lowest first."""
    while image:
        lowest = image & -image
        yield lowest.bit_length() - 1
        image ^= lowest
