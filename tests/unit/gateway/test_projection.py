"""The journal as line protocol: exact lines, unique times, the same points whenever it is done again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.wire.event import Basis, Body, GuardChanged, GuardState, MachineChanged, Priority, Quality
from edge_agent.wire.status import DeviceHealth, Health
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    AgentModelled,
    ClockStepped,
    Entry,
    EntryBody,
    FindingCleared,
    FindingRaised,
    GatewayRule,
    ReconciledClear,
)
from gateway.domain.projection import Projection, format_line, format_series, health_line, utc_us
from gateway.domain.violation import Violation
from tests.unit.gateway.alerting_rig import (
    AGENT,
    SITE,
    START_MS,
    Story,
    Told,
    cleared,
    event,
    listed,
    mixer_modelled,
    raised,
)

EPOCH = "01ABCDEFGHJKMNPQRSTVWXYZ00"
NS = START_MS * 1_000_000


def lines_of(*bodies: EntryBody | Told) -> list[str]:
    """The lines of a journal of these entries, rows folded as the gateway folds them."""
    story, projection = Story(plan=None), Projection()
    story.take(*bodies)
    find = story.rows.violations.get
    return [line for entry in story.entries for line in projection.lines_of(entry, find)]


def guard_changed(state: GuardState = GuardState.OPEN, at_ms: int = START_MS, seq: int = 2) -> EntryBody:
    change = GuardChanged("mixer-18", "door-1", state, GuardState.CLOSED, None, None, Quality.GOOD)
    return event(change, at_ms, seq=seq)


def machine_changed(moving: bool | None, mode: str | None) -> EntryBody:
    return event(MachineChanged("mixer-18", moving, mode, None), seq=7)


def test_a_raise_and_its_clear_are_two_points_of_one_series() -> None:
    series = "violation,site=changyi,area=moulding,machine=mixer-18,guard=door-1,rule=guard_open_motion,priority=P1"
    clear = event(cleared(duration_ms=7_321), START_MS + 8_000, seq=3)
    assert lines_of(mixer_modelled(), event(raised(), seq=2), clear) == [
        f'{series} event_id="changyi/gw-01/{EPOCH}/2",occurrence="OCC",active=1i {NS + 4}',
        (
            f'{series} event_id="changyi/gw-01/{EPOCH}/3",occurrence="OCC",active=0i,duration_ms=7321i'
            f" {NS + 8_000_000_000 + 6}"
        ),
    ]


def test_what_is_not_there_is_a_dash() -> None:
    lost = raised(rule="monitoring_lost", machine=None, guard=None, device="plc1", priority=Priority.P2)
    (line,) = lines_of(lost)
    assert line.startswith(
        "violation,site=changyi,area=-,machine=-,guard=-,rule=monitoring_lost,priority=P2 "
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (GuardState.UNKNOWN, 0),
        (GuardState.CLOSED, 1),
        (GuardState.CLOSED_LOCKED, 2),
        (GuardState.OPEN, 3),
        (GuardState.BYPASSED, 4),
        (GuardState.FAULT, 5),
        (GuardState.OUT_OF_SERVICE, 6),
    ],
)
def test_a_guards_state_has_its_code(state: GuardState, code: int) -> None:
    assert lines_of(mixer_modelled(), guard_changed(state)) == [
        (
            "guard_state,site=changyi,area=moulding,machine=mixer-18,guard=door-1"
            f' event_id="changyi/gw-01/{EPOCH}/2",state="{state}",code={code}i,quality="good" {NS + 4}'
        )
    ]


@pytest.mark.parametrize(
    ("moving", "mode", "fields"),
    [(True, "auto", ',moving=1i,mode="auto"'), (False, None, ",moving=0i"), (None, "setup", ',mode="setup"')],
)
def test_an_unknown_motion_is_absent(moving: bool | None, mode: str | None, fields: str) -> None:
    assert lines_of(machine_changed(moving, mode)) == [
        f'machine_state,site=changyi,area=-,machine=mixer-18 event_id="changyi/gw-01/{EPOCH}/7"{fields} {NS + 14}'
    ]


def test_the_gateways_own_findings_have_journal_time_and_position() -> None:
    found = FindingRaised("gateway-1", GatewayRule.STREAM_GAP, Priority.P2, SITE, AGENT, iso_utc(START_MS))
    series = "violation,site=changyi,area=-,machine=-,guard=-,rule=stream_gap,priority=P2"
    assert lines_of(found, FindingCleared("gateway-1", iso_utc(START_MS + 500), "filled")) == [
        f'{series} event_id="gateway/1",occurrence="gateway-1",active=1i {NS + 3}',
        f'{series} event_id="gateway/2",occurrence="gateway-1",active=0i,duration_ms=500i {NS + 5}',
    ]


def test_a_finding_about_no_site_has_a_dash_there() -> None:
    found = FindingRaised("gateway-1", GatewayRule.ALERT_FAILING, Priority.P2, None, None, iso_utc(START_MS))
    assert lines_of(found)[0].startswith("violation,site=-,area=-,")


def test_what_a_report_healed_counts_as_the_gateways_and_keeps_the_priority_of_the_raise() -> None:
    raise_ = listed("OCC", here="OCC.2")
    clear = ReconciledClear(SITE, AGENT, "OCC.2", iso_utc(START_MS + 60_000))
    first, second = lines_of(raise_, clear)
    assert 'event_id="gateway/1",occurrence="OCC.2",active=1i' in first
    assert 'event_id="gateway/2",occurrence="OCC.2",active=0i,duration_ms=60000i' in second
    assert first.split(" ")[0] == second.split(" ")[0]


def test_entries_that_are_no_points_are_none() -> None:
    agent = AgentModelled(SITE, AGENT, {"labels": {"zh": "a", "en": "b"}})
    assert (
        lines_of(agent, ClockStepped(5000), FindingCleared("gateway-9", iso_utc(START_MS), "never was")) == []
    )


def test_equal_times_in_one_series_never_meet_even_when_the_agents_clock_stands_still() -> None:
    seqs = [2, 3, 502, 503, 1002]  # three of them are equal modulo 500
    lines = lines_of(*(guard_changed(seq=seq) for seq in seqs))
    times = [int(line.rpartition(" ")[2]) for line in lines]
    assert len(set(times)) == len(seqs)
    assert times == sorted(times)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5000)), max_size=40), st.data())
def test_times_of_a_series_are_unique_and_do_not_depend_on_restarts(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    at_ms, entries = START_MS, []
    for number, (step_ms, seq) in enumerate(steps, start=1):
        at_ms += step_ms
        entries.append(Entry(number, START_MS, guard_changed(at_ms=at_ms, seq=seq)))
    whole, parts = Projection(), Projection()
    expected = [line for entry in entries for line in whole.lines_of(entry, lambda _: None)]
    found: list[str] = []
    for entry in entries:
        if data.draw(st.booleans()):
            restarted = Projection()
            restarted.restore(parts.snapshot(), parts.places(), parts.placed_at)
            parts = restarted
        found += parts.lines_of(entry, lambda _: None)
    assert found == expected
    times = [line.rpartition(" ")[2] for line in found]
    assert len(set(times)) == len(times)


def test_a_restart_keeps_the_places() -> None:
    before = Projection()
    before.lines_of(Entry(5, START_MS, mixer_modelled()), lambda _: None)
    after = Projection()
    after.restore(before.snapshot(), before.places(), before.placed_at)
    assert after.placed_at == 5
    (line,) = after.lines_of(Entry(6, START_MS, guard_changed()), lambda _: None)
    assert ",area=moulding," in line


def test_no_text_of_an_agent_can_break_a_line() -> None:
    series = format_series("violation", {"site": "a,b=c d\n\\", "guard": ""})
    assert series == r"violation,site=a\,b\=c\ d__,guard=-"
    assert (
        format_line(series, {"mode": 'say "hi"\\\n', "n": 1}, 5) == series + r' mode="say \"hi\"\\ ",n=1i 5'
    )


def test_health_is_written_as_measured() -> None:
    devices = {
        "plc1": DeviceHealth(up=True, age_ms=3, polls=9, errors=0),
        "plc2": DeviceHealth(False, None, 1, 1),
    }
    health = Health(True, EPOCH, "boot", at=iso_utc(START_MS), seq=9, polls=10, devices=devices, rss_mb=41)
    line = health_line(SITE, AGENT, health, START_MS + 5)
    assert line == (
        "agent_health,site=changyi,agent=gw-01 online=1i,seq=9i,outbox_pct=0i,polls=10i,overruns=0i,requests=0i,"
        f'devices_up=1i,devices_down=1i,clock="unsynced",rss_mb=41i {NS}'
    )
    will = Health(online=False, epoch=EPOCH, boot="boot")
    assert health_line(SITE, AGENT, will, START_MS + 5).endswith(f" {NS + 5_000_000}")


def test_times_are_exact_to_the_microsecond() -> None:
    assert utc_us("2026-11-22T06:03:22.412345Z") == START_MS * 1000 + 412_345
    with pytest.raises(ValueError, match="no time zone"):
        utc_us("2026-11-22T06:03:22")


def test_a_row_that_was_raised_with_another_priority_is_found_by_the_one_of_the_raise() -> None:
    row = replace(a_row(), priority=Priority.P1, raised_priority=Priority.P3)
    clear = Entry(9, START_MS, ReconciledClear(SITE, AGENT, "OCC", iso_utc(START_MS)))
    (line,) = Projection().lines_of(clear, lambda _: row)
    assert ",priority=P3 " in line


def a_row() -> Violation:
    story = Story(plan=None)
    body: Body = raised(basis=Basis.PROVEN)
    story.take(event(body))
    return story.violation()
