"""The engine end to end on paper: one cell, virtual time."""

from __future__ import annotations

from tests.unit.edge.rig import Rig, cell


def test_a_door_opened_while_running_is_raised_after_t_allow_and_cleared_after_off_delay() -> None:
    rig = Rig(cell())
    rig.run(1000, running=1)
    rig.run(3000, closed=0)
    rig.run(4000, closed=1)
    assert rig.story("guard_open_motion") == ["2000 +P1", "6000 -returned_to_normal"]
