"""A gateway whose disk was full when it started died at once, and again at each start, instead of serving and waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.adapters.store_sql.recording import SqlRecording
from gateway.ports import JournalUnavailable
from tests.simulation.crew import Script
from tests.simulation.gateway_node import TappedJournal
from tests.simulation.node import CrashPoint
from tests.simulation.suite import live
from tests.simulation.swarm import calm
from tests.simulation.world import World

T = TypeVar("T")


class NoRoom(TappedJournal):
    """Has no room for a single byte while the disk is full."""

    def _commit(self, work: Callable[[SqlRecording], T]) -> tuple[T, SqlRecording]:
        if self.disk.weather.is_full:
            raise JournalUnavailable("database or disk is full")
        return super()._commit(work)


def without_room(world: World) -> None:
    world.gateway.journal_class = NoRoom


def start_on_a_full_disk(world: World) -> Script:
    """The gateway's power fails; when it is back its disk is full, for ten seconds."""
    yield 8_000
    world.gateway.life.end(CrashPoint.NOW)
    yield 2_000
    world.gateway_disk.is_full = True
    world.gateway.start()
    yield 10_000
    world.gateway_disk.is_full = False


def test_it_waits_for_room_and_goes_on() -> None:
    world = live(calm(length_s=30), start_on_a_full_disk, customise=without_room)
    assert len(world.gateway.lives) == 2
    assert [str(finding) for finding in world.auditor.findings] == []
