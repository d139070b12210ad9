"""What the auditor blames the product for must have been promised: stories in which it once claimed too much."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from edge_agent.domain import held
from edge_agent.domain.plan import Table
from edge_agent.wire.event import ViolationCleared, ViolationRaised
from gateway.domain.journal import GapFound
from tests.simulation.crew import Script
from tests.simulation.findings import Check
from tests.simulation.suite import live
from tests.simulation.swarm import calm
from tests.simulation.ward import Key, Ward
from tests.simulation.world import World

pytestmark = pytest.mark.thorough


def lose_sight_of_one_half_then_of_the_other(world: World) -> Script:
    """Neither table is away for ten seconds, and both together are: the device cannot be seen for ten."""
    for table in (Table.HOLDING_REGISTER, Table.INPUT_REGISTER):
        yield 6_000
        world.ward.bus.table_down = table
        yield 7_400
        world.ward.bus.table_down = None


def test_a_device_of_which_one_block_and_then_another_is_not_seen_is_rightly_said_to_be_lost() -> None:
    world = live(calm(), lose_sight_of_one_half_then_of_the_other)
    raised = [said.event.body for said in world.ward.said if isinstance(said.event.body, ViolationRaised)]
    assert "monitoring_lost" in {body.rule for body in raised}
    assert [str(finding) for finding in world.auditor.findings] == []


def open_a_door(world: World) -> Script:
    """Something happens while the broker is away."""
    yield 12_000
    world.cell.machines["mixer-18"].guards["door-1"].move(closed=False)


def damage_the_newest(ward: Ward) -> Key:
    """Flip a bit of the newest event on an agent's disk, of which there is an image from before that."""
    ward.node.copy_store(image_of(ward))
    ward.note_image()
    with contextlib.closing(sqlite3.connect(ward.node.path, isolation_level=None)) as database:
        newest = "SELECT n, epoch, seq, payload FROM event ORDER BY n DESC LIMIT 1"
        place, epoch, seq, payload = database.execute(newest).fetchone()
        spoilt = bytes([payload[0] ^ 1]) + payload[1:]
        database.execute("UPDATE event SET payload=? WHERE n=?", (spoilt, place))
    ward.unreadable.add((epoch, seq))
    return epoch, seq


def image_of(ward: Ward) -> Path:
    """Where the image of its disk is kept."""
    return ward.node.path.parent / "image"


def test_an_event_that_an_older_disk_brings_back_was_rightly_said_to_be_lost() -> None:
    damaged: list[Key] = []

    async def befall(world: World) -> None:
        ward = world.ward
        await asyncio.sleep(10)
        world.broker.stop(is_wiped=False)
        await asyncio.sleep(5)
        await ward.node.kill()
        damaged.append(damage_the_newest(ward))
        world.broker.start()
        ward.node.start()
        await asyncio.sleep(15)
        await ward.node.kill()
        ward.node.lose_store(image_of(ward))
        ward.note_store(ward.image, by_image=True)
        ward.node.start()

    tasks: list[asyncio.Task[None]] = []
    world = live(
        calm(), open_a_door, customise=lambda world: tasks.append(asyncio.create_task(befall(world)))
    )
    [gap] = [entry.body for entry in world.auditor.entries if isinstance(entry.body, GapFound)]
    assert (gap.epoch, gap.from_seq, gap.final) == (*damaged[0], True)
    assert damaged[0] in {(held.event.epoch, held.event.seq) for held in world.auditor.journaled()}
    assert [str(finding) for finding in world.auditor.findings] == []


def press(world: World, *, pressed: bool) -> None:
    """Somebody presses an emergency stop, or releases it."""
    world.cell.machines["belt-03"].guards["estop"].move(closed=not pressed)


def press_and_have_no_room_for_the_end(world: World) -> Script:
    """The raise is stored; the clear comes when the outbox is full, and is counted."""
    yield 12_000
    press(world, pressed=True)
    yield 5_000
    store = world.ward.node.store
    assert store is not None
    limit_bytes, store._limit_bytes = store._limit_bytes, 0
    press(world, pressed=False)
    yield 5_000
    store._limit_bytes = limit_bytes
    yield 2_000


def press_again(world: World) -> Script:
    """Once more, when there is room."""
    press(world, pressed=True)
    yield 5_000
    press(world, pressed=False)
    yield 5_000


def stops_said(world: World) -> list[type]:
    """What was said first of the belt's emergency stop; at the end of every story all guards are tried once more."""
    bodies = [said.event.body for said in world.ward.said]
    said = [body for body in bodies if isinstance(body, ViolationRaised | ViolationCleared)]
    return [type(body) for body in said if (body.machine, body.rule) == ("belt-03", "estop")][:3]


def test_a_violation_whose_end_found_no_room_was_raised_though_the_next_one_is_raised_over_it() -> None:
    def script(world: World) -> Script:
        yield from press_and_have_no_room_for_the_end(world)
        yield from press_again(world)

    world = live(calm(), script)
    assert stops_said(world) == [ViolationRaised, ViolationRaised, ViolationCleared]
    assert [str(finding) for finding in world.auditor.findings] == []


def test_a_violation_whose_end_found_no_room_excuses_none_that_came_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(world: World) -> Script:
        yield from press_and_have_no_room_for_the_end(world)
        with monkeypatch.context() as patch:
            patch.setattr(held.Held, "step", lambda *_args, **_more: False)
            yield from press_again(world)
        yield from press_again(world)

    world = live(calm(), script)
    assert stops_said(world) == [ViolationRaised, ViolationRaised, ViolationCleared]
    assert {finding.check for finding in world.auditor.findings} == {Check.EVERY_REAL_VIOLATION_RAISED_ONCE}
