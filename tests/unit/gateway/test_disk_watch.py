"""The watch over the journal's disk: alarmed in time, said once, over when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import FindingCleared, FindingRaised, GatewayRule
from gateway.domain.room import ROOM_MIN_BYTES, Room, is_filling
from gateway.ports import Damage, JournalLost, JournalUnavailable, Recording
from gateway.services.disk_watch import DiskWatch
from tests.unit.gateway.journal_rig import AwayJournal, WoundClock

T = TypeVar("T")
ROOMY = Room(used_bytes=1_000_000, free_bytes=10 * ROOM_MIN_BYTES)


@dataclass
class FakeDisk:
    """A disk that the test fills, tears out and damages."""

    now: Room = ROOMY
    is_there: bool = True
    has_reserve: bool = True
    damage: list[Damage] = field(default_factory=list)

    def room(self) -> Room:
        return self.now

    def is_in_place(self) -> bool:
        return self.is_there

    def take_reserve(self) -> None:
        self.has_reserve = True

    def give_up_reserve(self) -> bool:
        had, self.has_reserve = self.has_reserve, False
        return had

    def untold_damage(self) -> Sequence[Damage]:
        return list(self.damage)

    def forget_damage(self, damage: Damage) -> None:
        self.damage.remove(damage)


class TightJournal(AwayJournal):
    """A journal on a disk without room: it takes a transaction only once the reserve is given up."""

    def __init__(self, journal: SqlJournal, disk: FakeDisk) -> None:
        super().__init__(journal)
        self._disk = disk

    async def transact(self, work: Callable[[Recording], T]) -> T:
        if self._disk.has_reserve:
            raise JournalUnavailable("database or disk is full")
        self.is_away = False
        return await super().transact(work)


@dataclass
class Rig:
    journal: SqlJournal
    disk: FakeDisk
    watch: DiskWatch
    findings: OpenFindings

    def told(self) -> list[tuple[str, GatewayRule | str]]:
        """What the journal says, in order."""
        found: list[tuple[str, GatewayRule | str]] = []
        for entry in self.journal.entries_after(0, 100):
            if isinstance(entry.body, FindingRaised):
                found.append(("raised", entry.body.rule))
            if isinstance(entry.body, FindingCleared):
                found.append(("cleared", entry.body.occurrence))
        return found


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    findings, disk, clock = OpenFindings(), FakeDisk(), WoundClock()
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/gateway.db", clock, {"findings": findings})
    yield Rig(journal, disk, DiskWatch(journal, disk, clock, findings), findings)
    await journal.close()


@pytest.mark.parametrize(
    ("used_mb", "free_mb", "was_filling", "expected"),
    [
        (100, 1000, False, False),
        (799, 200, False, False),
        (800, 200, False, True),  # four fifths of all it can have
        (750, 250, True, True),  # a margin: it does not come and go
        (690, 310, True, False),
        (1, 63, False, True),  # little room, however small the journal is
        (1, 65, False, False),
        (1, 70, True, True),
        (1, 90, True, False),
    ],
)
def test_what_counts_as_filling(used_mb: int, free_mb: int, was_filling: bool, expected: bool) -> None:
    assert is_filling(Room(used_mb << 20, free_mb << 20), was_filling=was_filling) is expected


async def test_little_room_is_alarmed_once_and_over_when_there_is_room_again(rig: Rig) -> None:
    await rig.watch.look()
    assert rig.told() == []
    rig.disk.now = replace(ROOMY, free_bytes=ROOM_MIN_BYTES // 2)
    await rig.watch.look()
    await rig.watch.look()
    assert rig.told() == [("raised", GatewayRule.JOURNAL_FILLING)]
    rig.disk.now = ROOMY
    await rig.watch.look()
    assert rig.told()[1:] == [("cleared", "gateway-1")]


async def test_with_no_room_at_all_the_reserve_says_it_and_is_taken_again(rig: Rig) -> None:
    tight = TightJournal(rig.journal, rig.disk)
    watch = DiskWatch(tight, rig.disk, WoundClock(), rig.findings)
    rig.disk.now = Room(1_000_000, 0)
    await watch.look()
    assert rig.told() == [("raised", GatewayRule.JOURNAL_FILLING)]
    assert not rig.disk.has_reserve
    rig.disk.now = ROOMY
    await watch.look()
    await watch.look()
    assert rig.disk.has_reserve


async def test_damage_is_told_before_it_is_forgotten(rig: Rig) -> None:
    rig.disk.damage.append(Damage("gateway.db.untold-1", "gateway.db.damaged-1: not a database"))
    away = DiskWatch(AwayJournal(rig.journal), rig.disk, WoundClock(), rig.findings)
    await away.look()
    assert rig.disk.damage, "it could not be told yet"
    await rig.watch.look()
    assert rig.told() == [("raised", GatewayRule.JOURNAL_DAMAGED)]
    assert rig.disk.damage == []


async def test_a_file_gone_from_its_place_ends_the_process(rig: Rig) -> None:
    rig.disk.is_there = False
    with pytest.raises(JournalLost, match="unmounted, deleted or replaced"):
        await rig.watch.look()


async def test_what_failed_is_tried_again_when_nobody_else_does(rig: Rig) -> None:
    rig.journal.failing_since_ms, rig.journal.problem = WoundClock().now_ms - 10_000, "database is locked"
    await rig.watch.look()
    assert rig.journal.failing_since_ms is None
    assert rig.journal.problem is None
    assert rig.told() == []
