"""What a state report raised again as OCC.2 stayed on the board for ever: the agent's clear of OCC did not end it."""

from __future__ import annotations

from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import (
    Basis,
    Body,
    ClockState,
    OpenOccurrence,
    Priority,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.journal import EdgeEvent, Entry, EntryBody, ReconciledChange, ReconciledRaise
from gateway.domain.plant_fold import Plant

AT = "2026-09-21T14:13:20.000000Z"
PLACE = ("mixer-18", "door-1", None)
LISTED = OpenOccurrence("E-7", "guard_open_motion", *PLACE, Priority.P1, Basis.PROVEN, AT, None)


class Told:
    def __init__(self) -> None:
        self.plant = Plant()
        self.position = 0

    def hear(self, body: EntryBody) -> None:
        self.position += 1
        self.plant.stage(Entry(self.position, 1_790_000_000_000 + self.position, body), None)
        self.plant.adopt()

    def say(self, body: Body) -> None:
        stamp = Stamp("site", "gw", "E", self.position + 1, "boot", 1, AT, ClockState.SYNCED, "0" * 64)
        self.hear(EdgeEvent(seal(stamp, body), AT))


def raised() -> ViolationRaised:
    return ViolationRaised(*PLACE, "guard_open_motion", Priority.P1, Basis.PROVEN, "E-7", AT, None)


def cleared() -> ViolationCleared:
    return ViolationCleared("E-7", "guard_open_motion", *PLACE, Priority.P1, AT, "over", 1, 1, 1)


def test_the_agents_clear_ends_what_its_occurrence_goes_on_as() -> None:
    told = Told()
    told.say(raised())
    told.say(cleared())
    told.hear(ReconciledRaise("site", "gw", "E-7.2", LISTED))
    assert list(told.plant.state.violations) == ["E-7.2"]

    told.say(cleared())

    assert not told.plant.state.violations


def test_the_agents_change_reaches_it_too() -> None:
    told = Told()
    told.hear(ReconciledRaise("site", "gw", "E-7.2", LISTED))

    told.say(
        ViolationChanged(
            "E-7", "guard_open_motion", *PLACE, Priority.P2, Priority.P1, Basis.UNKNOWN, None, "moving"
        )
    )

    assert told.plant.state.violations["E-7.2"].priority is Priority.P2


def test_a_change_that_only_a_report_tells_shows_on_the_board() -> None:
    told = Told()
    told.say(raised())
    listed = OpenOccurrence("E-7", "guard_open_motion", *PLACE, Priority.P3, Basis.PROVEN, AT, None)

    told.hear(ReconciledChange("site", "gw", "E-7", listed))

    assert told.plant.state.violations["E-7"].priority is Priority.P3
