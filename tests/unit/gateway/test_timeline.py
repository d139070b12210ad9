"""What a guard was over time: no hole, no state past its last confirmation."""

from dataclasses import replace

from edge_agent.wire.event import (
    AgentStarted,
    Body,
    ClockState,
    GuardChanged,
    GuardState,
    Quality,
    StateReport,
)
from gateway.domain.instants import iso_utc
from gateway.domain.journal import EdgeEvent, Entry, EntryBody, GapFound, PresenceChanged
from gateway.domain.occurred import Anchor
from gateway.domain.timeline import trace_guard
from tests.board_rig import AGENT, SITE, ScriptedStream

T0 = 1_800_000_000_000


class Story:
    """Entries at given seconds; `at` of an event may differ from when it was recorded."""

    def __init__(self) -> None:
        self.stream = ScriptedStream()
        self.entries: list[Entry] = []
        self.anchors: dict[str, Anchor] = {}

    def note(self, second: int, body: EntryBody) -> None:
        self.entries.append(Entry(len(self.entries) + 1, T0 + second * 1000, body))

    def say(self, second: int, body: Body, recorded: int | None = None) -> None:
        event = self.stream.event(body, iso_utc(T0 + second * 1000))
        self.note(second if recorded is None else recorded, event)

    def door(self, second: int, state: GuardState, recorded: int | None = None) -> None:
        self.say(second, GuardChanged("mixer-18", "door-1", state, None, None, None, Quality.GOOD), recorded)

    def door_without_a_clock(self, recorded: int, state: GuardState) -> None:
        """What a machine in 1970 tells: its time is that of receipt."""
        body = GuardChanged("mixer-18", "door-1", state, None, None, None, Quality.GOOD)
        told = self.stream.event(body, iso_utc(T0 + recorded * 1000))
        self.note(recorded, replace(told, event=replace(told.event, clock=ClockState.UNSYNCED)))

    def heard(self, second: int, online: bool) -> None:
        self.note(second, PresenceChanged(SITE, AGENT, online, None, "test"))

    def trace(self, first: int, last: int) -> list[tuple[int, int, str]]:
        window = (T0 + first * 1000, T0 + last * 1000)
        intervals = trace_guard(self.entries, "mixer-18", "door-1", window, self.anchors)
        return [
            ((item.from_ms - T0) // 1000, (item.to_ms - T0) // 1000, item.state.value) for item in intervals
        ]


def test_before_the_first_word_it_is_unknown() -> None:
    story = Story()
    story.door(10, GuardState.CLOSED)
    assert story.trace(0, 20) == [(0, 10, "unknown"), (10, 20, "closed")]


def test_a_window_begins_with_what_was_known_before_it() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.door(15, GuardState.OPEN)
    assert story.trace(10, 20) == [(10, 15, "closed"), (15, 20, "open")]


def test_an_hourly_report_of_the_same_state_is_no_new_interval() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.say(5, StateReport(1, 1, {"mixer-18": {"door-1": "c--g"}}, {}, ()))
    assert story.trace(2, 9) == [(2, 9, "closed")]


def test_a_silence_that_was_made_good_leaves_no_hole() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.heard(5, online=False)
    story.heard(9, online=True)
    story.door(7, GuardState.OPEN, recorded=10)
    assert story.trace(0, 12) == [(0, 1, "unknown"), (1, 7, "closed"), (7, 12, "open")]


def test_while_an_agent_was_not_running_its_guards_are_unknown_from_when_it_was_missed() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.heard(5, online=False)
    story.say(9, AgentStarted(None, "1", "c", False))
    story.heard(9, online=True)
    story.door(10, GuardState.CLOSED)
    assert story.trace(1, 12) == [(1, 5, "closed"), (5, 10, "unknown"), (10, 12, "closed")]


def test_a_restart_that_nobody_missed_counts_from_the_last_event() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.say(9, AgentStarted(None, "1", "c", False))
    story.door(10, GuardState.CLOSED)
    assert story.trace(0, 12) == [(0, 10, "unknown"), (10, 12, "closed")]


def test_a_state_is_never_drawn_past_the_moment_the_agent_fell_silent() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.heard(5, online=False)
    assert story.trace(0, 60) == [(0, 1, "unknown"), (1, 5, "closed"), (5, 60, "unknown")]


def test_after_a_final_gap_nothing_is_known_until_the_guard_is_spoken_of() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.note(6, GapFound(SITE, AGENT, "g", "e", 2, 9, True, "gone"))
    story.door(8, GuardState.CLOSED)
    assert story.trace(0, 9) == [(0, 8, "unknown"), (8, 9, "closed")]


def test_what_had_no_time_when_it_came_is_drawn_where_it_belongs_once_its_boot_has_one() -> None:
    story = Story()
    story.door(1, GuardState.CLOSED)
    story.door_without_a_clock(50, GuardState.OPEN)
    assert story.trace(1, 60) == [(1, 50, "closed"), (50, 60, "open")]
    late = story.entries[-1].body
    assert isinstance(late, EdgeEvent)
    story.anchors[late.event.boot] = Anchor(iso_utc(T0 + 9000), late.event.mono_ms)
    assert story.trace(1, 60) == [(1, 9, "closed"), (9, 60, "open")]


def test_a_window_without_any_word_is_one_unknown_interval() -> None:
    assert Story().trace(3, 4) == [(3, 4, "unknown")]
