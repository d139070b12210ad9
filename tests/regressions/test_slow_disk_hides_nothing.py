"""Replies were judged when the disk let the agent go on, not when they came.

A violation that began and ended while a commit hung was judged as lasting no time at all, and never raised. With a
full disk the agent judged once a second only, so that a device could be shown closed a second after it was lost.
"""

from __future__ import annotations

import asyncio

from edge_agent.wire.event import ViolationCleared, ViolationRaised
from simulators.acts import Act, Verb
from tests.simulation.crew import Script
from tests.simulation.suite import live
from tests.simulation.swarm import calm
from tests.simulation.world import World


def open_while_the_disk_hangs(world: World) -> Script:
    """The door's opening is committed by a disk that takes four seconds; meanwhile it is closed again."""
    machine = world.cell.machines["mixer-18"]
    door = machine.guards["door-1"]
    machine.start()
    yield 5_000
    world.cell.act(Act(Verb.DEFEAT, machine="mixer-18", guard="door-1"))
    world.ward.disk.latency_ms_min = world.ward.disk.latency_ms_max = 4_000
    door.move(closed=False)
    yield 2_500
    door.move(closed=True)
    world.ward.disk.latency_ms_min, world.ward.disk.latency_ms_max = 1, 3
    yield 10_000


def lose_a_device_with_a_full_disk(world: World) -> Script:
    """Nothing can be written when the mixer's controller falls silent."""
    yield 5_000
    filling = asyncio.create_task(world.troubles.fill_disk(world.draw.split("disk")))
    yield 1_300
    world.cell.act(Act(Verb.UNPLUG, device="plc-mixer"))
    yield 12_000
    world.cell.act(Act(Verb.PLUG, device="plc-mixer"))
    filling.add_done_callback(lambda _done: None)


CALM = calm(length_s=30, poll_ms=250)


def test_a_violation_during_a_slow_commit_is_raised_with_its_true_duration() -> None:
    world = live(CALM, open_while_the_disk_hangs)
    bodies = [said.event.body for said in world.ward.said]
    raised = [body for body in bodies if isinstance(body, ViolationRaised)]
    cleared = [body for body in bodies if isinstance(body, ViolationCleared)]
    assert [body.rule for body in raised if body.guard == "door-1"] == ["guard_open_motion"]
    (over,) = [body for body in cleared if body.guard == "door-1"]
    assert 2_000 <= over.duration_ms <= 5_000
    assert [str(finding) for finding in world.auditor.findings] == []


def test_a_lost_device_is_unknown_in_time_though_the_disk_is_full() -> None:
    assert [str(finding) for finding in live(CALM, lose_a_device_with_a_full_disk).auditor.findings] == []
