"""An alarm stayed on the board for an hour because its end had found no room in the agent's store.

What an overflow dropped is healed by a state report; but none was made before the hourly one, when the connection
stood all the time or the report itself had found no room.
"""

from __future__ import annotations

from edge_agent.wire.event import OutboxOverflow, StateReport
from tests.simulation.suite import live
from tests.simulation.swarm import calm


def test_what_found_no_room_is_reported_as_soon_as_there_is_some() -> None:
    world = live(calm(outbox_kb=8, partition_every_s=12))
    assert [str(finding) for finding in world.auditor.findings] == []
    said = [type(item.event.body) for item in world.ward.said]
    assert OutboxOverflow in said
    assert StateReport in said[len(said) - said[::-1].index(OutboxOverflow) :]
