"""The plant fold and the board: what may be shown, what is history, and in which order."""

from dataclasses import replace
from typing import cast

import pytest

from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    GuardChanged,
    GuardState,
    Json,
    MachineChanged,
    OpenOccurrence,
    Priority,
    Quality,
    StateReport,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.board import Beat, View, blind_guards, board_document, count, guard_document, labels_of
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    Entry,
    EntryBody,
    FindingCleared,
    FindingRaised,
    GatewayRule,
    MachineModelled,
    MachineRemoved,
    PresenceChanged,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.plant import read_code
from gateway.domain.plant_fold import Plant
from tests.board_rig import AGENT, SITE, ScriptedStream, births

T0 = 1_800_000_000_000
DOOR = (SITE, "mixer-18", "door-1")


class Told:
    """A plant that is told entries, one a second."""

    def __init__(self) -> None:
        self.plant = Plant()
        self.stream = ScriptedStream()
        self.position = 0
        self.now_ms = T0

    def entry(self, body: EntryBody) -> Entry:
        self.position += 1
        self.now_ms += 1000
        return Entry(self.position, self.now_ms, body)

    def hear(self, *bodies: EntryBody) -> None:
        for body in bodies:
            self.plant.stage(self.entry(body), None)
        self.plant.adopt()

    def say(self, *bodies: object) -> None:
        for body in bodies:
            self.hear(self.stream.event(body, iso_utc(self.now_ms + 1000)))  # type: ignore[arg-type]

    def online(self, seq: int = 0, epoch: str | None = None) -> None:
        self.hear(PresenceChanged(SITE, AGENT, True, epoch or self.stream.epoch, "test", seq))

    def offline(self) -> None:
        self.hear(PresenceChanged(SITE, AGENT, False, None, "test"))

    @property
    def view(self) -> View:
        return View(self.plant.state, {}, self.now_ms)

    def guard(self, key: tuple[str, str, str] = DOOR) -> dict[str, Json]:
        document = guard_document(self.view, key)
        assert document is not None
        return document

    def board(self) -> dict[str, Json]:
        return board_document(self.view, {})


def changed(state: GuardState, guard: str = "door-1", machine: str = "mixer-18") -> GuardChanged:
    return GuardChanged(machine, guard, state, None, False, None, Quality.GOOD)


def raised(occurrence: str, priority: Priority = Priority.P1, **more: object) -> ViolationRaised:
    whole = ViolationRaised(
        "mixer-18", "door-1", None, "guard_open_motion", priority, Basis.PROVEN, occurrence, iso_utc(T0), None
    )
    return replace(whole, **more)  # type: ignore[arg-type]


@pytest.fixture
def told() -> Told:
    """An agent that is heard, with its birth certificates and one closed door."""
    told = Told()
    told.hear(*births())
    told.online()
    told.say(AgentStarted(None, "1", "c", True), MachineChanged("mixer-18", True, "auto", None))
    told.say(changed(GuardState.CLOSED))
    return told


def test_a_guard_shows_what_its_agent_said_last(told: Told) -> None:
    assert (told.guard()["state"], told.guard()["last"]) == ("closed", None)


def test_a_guard_nobody_spoken_of_is_unknown_not_closed(told: Told) -> None:
    guard = told.guard((SITE, "belt-11", "cover"))
    assert (guard["state"], guard["since"], guard["last"]) == ("unknown", None, None)


def test_a_silent_agent_makes_every_guard_and_machine_unknown_with_what_was_last_known(told: Told) -> None:
    told.offline()
    guard = told.guard()
    last = cast("dict[str, Json]", guard["last"])
    assert guard["state"] == "unknown"
    assert guard["since"] == iso_utc(told.now_ms)
    assert (last["state"], last["until"]) == ("closed", iso_utc(told.now_ms))
    assert guard["quality"] == "stale"
    text = repr(told.board())
    assert "'state': 'closed'" not in text.replace("'last': {'state': 'closed'", "")
    assert "'moving': True" not in text


def test_only_the_silent_agents_guards_become_unknown(told: Told) -> None:
    told.hear(PresenceChanged(SITE, "gw-02", True, "E2", "test"))
    told.hear(PresenceChanged(SITE, "gw-02", False, None, "test"))
    assert told.guard()["state"] == "closed"


def test_an_agent_never_heard_shows_nothing_as_a_state() -> None:
    told = Told()
    told.say(AgentStarted(None, "1", "c", True), changed(GuardState.CLOSED))
    assert told.guard()["state"] == "unknown"


def test_states_come_back_with_the_agent_when_it_stored_nothing_meanwhile(told: Told) -> None:
    told.offline()
    told.online(seq=told.stream.seq)
    assert told.guard()["state"] == "closed"


def test_states_stay_unknown_until_what_the_agent_stored_meanwhile_has_come(told: Told) -> None:
    told.offline()
    silent_since = iso_utc(told.now_ms)
    told.online(seq=told.stream.seq + 2)
    assert told.guard()["state"] == "unknown"
    told.say(changed(GuardState.OPEN))
    assert told.guard()["state"] == "unknown"
    assert cast("dict[str, Json]", told.guard()["last"])["until"] == silent_since
    told.say(changed(GuardState.CLOSED))
    assert told.guard()["state"] == "closed"
    assert told.plant.state.agents[SITE, AGENT].settled_at == told.position


def test_waiting_for_a_run_ends_when_a_later_run_begins(told: Told) -> None:
    told.offline()
    told.online(seq=99)
    told.stream.epoch = "01K0000000000000000000000B"
    told.stream.seq = 0
    told.say(AgentStarted(told.stream.position, "1", "c", False), changed(GuardState.OPEN))
    assert told.guard()["state"] == "open"


def test_a_restarted_agents_guards_are_unknown_until_the_new_run_speaks_of_them(told: Told) -> None:
    told.stream.epoch = "01K0000000000000000000000B"
    told.stream.seq = 0
    told.say(AgentStarted(None, "1", "c", False))
    assert told.guard()["state"] == "unknown"
    assert cast("dict[str, Json]", told.guard()["last"])["state"] == "closed"
    told.say(StateReport(1, 1, {"mixer-18": {"door-1": "l01g"}}, {"mixer-18": (False, "maint")}, ()))
    assert (told.guard()["state"], told.guard()["locked"], told.guard()["bypass"]) == (
        "closed_locked",
        True,
        False,
    )


def test_a_report_of_the_same_state_keeps_its_beginning(told: Told) -> None:
    since = told.guard()["since"]
    told.say(StateReport(1, 1, {"mixer-18": {"door-1": "c0-g"}}, {}, ()))
    assert told.guard()["since"] == since


def test_a_guard_that_turned_unknown_says_what_it_was_before(told: Told) -> None:
    since = told.guard()["since"]
    told.say(changed(GuardState.UNKNOWN))
    assert told.guard()["last"] == {"state": "closed", "since": since, "until": iso_utc(told.now_ms)}


def test_guards_known_by_events_alone_appear_until_a_certificate_leaves_them_out(told: Told) -> None:
    told.say(changed(GuardState.OPEN, "hatch-9"))
    assert told.guard((SITE, "mixer-18", "hatch-9"))["labels"] == {"zh": "hatch-9", "en": "hatch-9"}
    certificate = next(
        body for body in births() if isinstance(body, MachineModelled) and body.machine == "mixer-18"
    )
    told.hear(certificate)
    assert guard_document(told.view, (SITE, "mixer-18", "hatch-9")) is None


def test_a_removed_machine_leaves_the_board(told: Told) -> None:
    told.hear(MachineRemoved(SITE, AGENT, "mixer-18"))
    assert (SITE, "mixer-18") not in told.plant.state.machines
    assert guard_document(told.view, DOOR) is None


def test_an_unreadable_certificate_changes_nothing(told: Told) -> None:
    before = told.plant.state.machines[SITE, "mixer-18"]
    told.hear(MachineModelled(SITE, AGENT, "mixer-18", {"labels": 7}))
    assert told.plant.state.machines[SITE, "mixer-18"] == before


def test_machines_stand_in_the_order_of_the_configuration_and_guards_by_number(told: Told) -> None:
    told.say(changed(GuardState.CLOSED, "door-10"), changed(GuardState.CLOSED, "door-9"))
    sites = cast("list[dict[str, list[dict[str, list[dict[str, Json]]]]]]", told.board()["sites"])
    machines = [machine for area in sites[0]["areas"] for machine in area["machines"]]
    assert [machine["machine"] for machine in machines] == [
        "mixer-18",
        "crusher-02",
        "belt-11",
        "palletiser-03",
        "screen-04",
    ]
    guards = cast("list[dict[str, Json]]", machines[0]["guards"])
    assert [guard["guard"] for guard in guards] == ["door-1", "door-2", "door-9", "door-10", "estop"]


@pytest.mark.parametrize("name", ["door-²", "door-" + "9" * 5000, "٣", ""])
def test_whatever_an_agent_calls_a_guard_or_a_machine_the_board_is_shown(told: Told, name: str) -> None:
    told.say(changed(GuardState.OPEN, name), changed(GuardState.OPEN, machine=name))
    assert count(told.view)["open"] == 2
    told.board()


def test_what_one_agent_says_of_anothers_violation_changes_nothing(told: Told) -> None:
    told.say(raised("b"))
    stranger = ScriptedStream(agent="gw-02")
    place = ("r", "mixer-18", "door-1", None)
    for body in (
        ViolationChanged("b", *place, Priority.P4, Priority.P1, Basis.PROVEN, "a", "hidden"),
        raised("b", Priority.P4),
        ViolationCleared("b", *place, Priority.P1, iso_utc(T0), "", 1, 1, 1),
        ViolationCleared("", *place, Priority.P1, iso_utc(T0), "", 1, 1, 1),
    ):
        told.hear(stranger.event(body, iso_utc(T0)))
    assert (told.guard()["alarms"], told.guard()["priority"]) == (1, "P1")
    told.say(ViolationCleared("", *place, Priority.P1, iso_utc(T0), "", 1, 1, 1))
    assert told.guard()["alarms"] == 1


def test_open_violations_are_counted_at_their_guard_with_the_worst_priority(told: Told) -> None:
    told.say(raised("a", Priority.P2), raised("b"), raised("c", hidden_by="b"))
    assert (told.guard()["alarms"], told.guard()["priority"]) == (2, "P1")
    told.say(ViolationCleared("b", "r", "mixer-18", "door-1", None, Priority.P1, iso_utc(T0), "", 1, 1, 1))
    assert (told.guard()["alarms"], told.guard()["priority"]) == (1, "P2")


def test_a_violation_hidden_no_more_counts(told: Told) -> None:
    told.say(raised("c", hidden_by="b"))
    assert told.guard()["alarms"] == 0
    told.say(
        ViolationChanged(
            "c", "r", "mixer-18", "door-1", None, Priority.P2, Priority.P1, Basis.PROVEN, None, "parent over"
        )
    )
    assert (told.guard()["alarms"], told.guard()["priority"]) == (1, "P2")


def test_reconciled_violations_and_the_gateways_own_findings_count_too(told: Told) -> None:
    listed = OpenOccurrence(
        "r", "guard_open_motion", "mixer-18", "door-1", None, Priority.P1, Basis.UNKNOWN, iso_utc(T0), None
    )
    told.hear(
        ReconciledRaise(SITE, AGENT, "r", listed),
        FindingRaised("f", GatewayRule.STREAM_GAP, Priority.P2, SITE, AGENT, iso_utc(T0)),
    )
    counts = count(told.view)
    assert (counts["violations"], counts["P1"], counts["P2"], counts["unproven"]) == (2, 1, 1, 1)
    told.hear(ReconciledClear(SITE, AGENT, "r", iso_utc(T0)), FindingCleared("f", iso_utc(T0), "filled"))
    assert count(told.view)["violations"] == 0


def test_counts_add_up_to_the_number_of_guards(told: Told) -> None:
    told.say(changed(GuardState.BYPASSED, "door-2"))
    counts = count(told.view)
    assert counts["guards"] == sum(counts[state.value] for state in GuardState)
    assert (counts["closed"], counts["bypassed"]) == (1, 1)
    assert blind_guards(told.view, SITE, AGENT) == counts["unknown"]


def test_age_is_that_of_the_oldest_device_plus_the_time_since_the_beat(told: Told) -> None:
    view = View(told.plant.state, {(SITE, AGENT): Beat(700, {"plc1": 120})}, told.now_ms)
    assert (guard_document(view, DOOR) or {})["age_ms"] == 820


def test_no_age_is_stated_where_a_device_never_answered(told: Told) -> None:
    view = View(told.plant.state, {(SITE, AGENT): Beat(700, {"plc1": None})}, told.now_ms)
    assert (guard_document(view, DOOR) or {})["age_ms"] is None


def test_while_nothing_reaches_the_journal_no_guard_is_shown_as_it_was(told: Told) -> None:
    """What agents say since then is known to nobody: a door that is shown closed may be open."""
    assert count(told.view)["closed"] > 0
    blind = replace(told.view, blind_since_ms=T0 + 5000)
    shown = guard_document(blind, DOOR) or {}
    assert (shown["state"], shown["quality"], shown["since"]) == ("unknown", "stale", iso_utc(T0 + 5000))
    counts = count(blind)
    assert counts["unknown"] == counts["guards"] == blind_guards(blind, SITE, AGENT)


def test_what_was_staged_and_discarded_never_was(told: Told) -> None:
    before = told.plant.snapshot()
    told.plant.stage(told.entry(told.stream.event(changed(GuardState.OPEN), iso_utc(T0))), None)
    told.plant.discard()
    assert told.plant.snapshot() == before


def test_nothing_staged_is_shown_before_it_is_committed(told: Told) -> None:
    told.plant.stage(told.entry(told.stream.event(changed(GuardState.OPEN), iso_utc(T0))), None)
    assert told.guard()["state"] == "closed"
    told.plant.adopt()
    assert told.guard()["state"] == "open"


def test_a_plant_restored_from_a_snapshot_is_the_same(told: Told) -> None:
    told.say(raised("a"), changed(GuardState.UNKNOWN))
    told.offline()
    other = Plant()
    other.restore(told.plant.snapshot())
    assert other.state == told.plant.state
    assert other.snapshot() == told.plant.snapshot()


def test_a_place_is_named_from_the_outside_in(told: Told) -> None:
    state = told.plant.state
    names = [labels["en"] for _, labels in labels_of(state, SITE, AGENT, "mixer-18", "door-1")]
    assert names == ["Changyi", "Mixer 18", "Manhole door"]
    assert [labels["en"] for _, labels in labels_of(state, SITE, AGENT, None, None)] == [
        "Changyi",
        "Changyi gateway 1",
    ]
    assert labels_of(state, None, None, None, None) == []


@pytest.mark.parametrize(
    ("code", "state", "locked"),
    [
        ("l-1g", GuardState.CLOSED_LOCKED, True),
        ("c--g", GuardState.CLOSED, None),
        ("x000", GuardState.UNKNOWN, False),  # a letter of a younger version
        ("", GuardState.UNKNOWN, None),
    ],
)
def test_short_codes_read_to_states_and_what_is_strange_to_unknown(
    code: str, state: GuardState, locked: bool | None
) -> None:
    assert (read_code(code).state, read_code(code).locked) == (state, locked)
