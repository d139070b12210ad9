"""An agent is alive when its beats rise, and not when something says so."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.wire.event import Position, Priority
from edge_agent.wire.status import DeviceHealth, Health, HealthPage
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import Entry, FindingCleared, FindingRaised, GatewayRule, PresenceChanged
from gateway.domain.presence import (
    LOST_MS,
    OFFLINE_MS,
    UNJUDGED_MS,
    Presence,
    hear,
    is_lost,
    watch,
)
from gateway.services.presence import PresenceWatch
from tests.scripted_agent import AGENT, SITE, ulid
from tests.unit.gateway.journal_rig import AwayJournal, WoundClock

E, F = ulid(1), ulid(2)
KEY = (SITE, AGENT)


def beat(polls: int, epoch: str = E, **changes: object) -> Health:
    return Health(online=True, epoch=epoch, boot="b", polls=polls, **changes)  # type: ignore[arg-type]


WILL = Health(online=False, epoch=E, boot="b")


# pure


def test_one_beat_proves_nothing_and_a_second_that_rises_proves_life() -> None:
    first = hear(Presence(0), beat(5), 0, retained=False)
    assert not first.online
    assert hear(first, beat(6), 2000, retained=False).online


def test_a_beat_that_does_not_rise_proves_nothing() -> None:
    frozen = hear(hear(Presence(0), beat(5), 0, retained=False), beat(5), 2000, retained=False)
    assert not frozen.online


def test_an_agent_that_polls_once_a_minute_is_there_as_long_as_it_finds_itself_alive() -> None:
    presence = hear(Presence(0), beat(5, beats=1), 0, retained=False)
    for look in range(2, 40):
        presence = watch(hear(presence, beat(5, beats=look), 2000 * look, retained=False), 2000 * look)
        assert presence.online
    hung = 2000 * 39
    for now in range(hung, hung + OFFLINE_MS + 1, 2000):
        presence = watch(hear(presence, beat(5, beats=39), now, retained=False), now)
    assert not presence.online


def test_a_retained_beat_is_only_a_measure_for_the_next() -> None:
    twice = hear(hear(Presence(0), beat(5), 0, retained=True), beat(6), 10, retained=True)
    assert not twice.online
    assert hear(twice, beat(7), 2000, retained=False).online


def test_six_seconds_without_a_rise_end_it() -> None:
    alive = hear(hear(Presence(0), beat(5), 0, retained=False), beat(6), 2000, retained=False)
    assert watch(alive, 2000 + OFFLINE_MS - 1).online
    assert not watch(alive, 2000 + OFFLINE_MS).online


def test_beats_that_stand_still_end_it_as_silence_does() -> None:
    presence = hear(hear(Presence(0), beat(5), 0, retained=False), beat(6), 2000, retained=False)
    for now in range(4000, 10_000, 2000):
        presence = watch(hear(presence, beat(6), now, retained=False), now)
    assert not presence.online


def test_the_will_of_the_run_that_is_heard_ends_it_at_once_and_an_older_runs_does_not() -> None:
    alive = hear(hear(Presence(0), beat(5), 0, retained=False), beat(6), 2000, retained=False)
    assert not hear(alive, WILL, 2100, retained=False).online
    new_run = hear(hear(alive, beat(1, F), 3000, retained=False), beat(2, F), 5000, retained=False)
    assert hear(new_run, WILL, 5100, retained=False).online


def test_a_new_run_must_prove_itself() -> None:
    alive = hear(hear(Presence(0), beat(5), 0, retained=False), beat(6), 2000, retained=False)
    assert not hear(alive, beat(9, F), 3000, retained=False).online


def test_monitoring_is_lost_thirty_seconds_after_the_last_rise() -> None:
    alive = hear(hear(Presence(0), beat(5), 0, retained=False), beat(6), 2000, retained=False)
    silent = watch(alive, 2000 + LOST_MS - 1)
    assert not is_lost(silent, 2000 + LOST_MS - 1)
    assert is_lost(silent, 2000 + LOST_MS)


def test_a_beat_that_was_held_up_proves_no_more_than_when_it_was_said() -> None:
    """It waited in the broker while the journal was full; read as of now, it kept doors closed on the board for 6 s."""
    alive = Presence(0)
    for polls in range(5):
        alive = hear(alive, beat(polls, mono_ms=2000 * polls), 7 + 2000 * polls, retained=False)
    late = hear(alive, beat(5, mono_ms=10_000), 14_007, retained=False)
    assert late.online
    assert watch(late, 16_006).online
    assert not watch(late, 16_007).online
    assert not hear(alive, beat(5, mono_ms=10_000), 16_007, retained=False).online
    assert is_lost(hear(alive, beat(5, mono_ms=10_000), 40_007, retained=False), 40_007)


def test_a_beat_that_names_any_moment_takes_no_proof_back() -> None:
    """Nor does it end the process: a moment 285 000 years ago has no date."""
    presence = Presence(0)
    for polls in range(5):
        presence = hear(presence, beat(polls, mono_ms=2000 * polls), 2000 * polls, retained=False)
    ahead = hear(presence, beat(5, mono_ms=2**53 - 1), 10_000, retained=False)
    behind = hear(ahead, beat(6, mono_ms=0), 10_500, retained=False)
    assert behind.online
    assert behind.alive_ms == 10_000


def test_a_twin_whose_clock_lags_by_an_hour_makes_no_presence_flap() -> None:
    presence, shown = Presence(0), []
    for second in range(2, 60):
        mono_ms = 1000 * second if second % 2 else 1000 * second - 3_600_000
        presence = hear(presence, beat(second, mono_ms=mono_ms), 1000 * second, retained=False)
        presence = watch(presence, 1000 * second)
        shown.append(presence.online)
        assert not is_lost(presence, 1000 * second)
    assert shown == sorted(shown)


def test_a_way_that_grew_by_five_seconds_flaps_no_presence() -> None:
    presence, shown = Presence(0), []
    for now_ms in range(0, 120_000, 500):
        if now_ms % 2000 == 0:
            said_ms = now_ms if now_ms < 40_000 else now_ms - 5000
            presence = hear(presence, beat(now_ms, mono_ms=said_ms), now_ms, retained=False)
        presence = watch(presence, now_ms)
        assert not is_lost(presence, now_ms)
        shown.append(presence.online)
    assert sum(before and not after for before, after in pairwise(shown)) == 1
    assert shown[-1]


def test_beats_that_came_late_are_no_hindrance_once_they_come_in_time_again() -> None:
    presence = Presence(0)
    for polls in range(5):
        presence = hear(presence, beat(polls, mono_ms=2000 * polls), 7 + 2000 * polls, retained=False)
    presence = hear(presence, beat(5, mono_ms=10_000), 20_000, retained=False)
    assert not presence.online
    assert hear(presence, beat(6, mono_ms=20_100), 20_110, retained=False).online


# the service, over a real journal


class Rig:
    """A presence watch, its clock and what it journaled."""

    def __init__(self, journal: SqlJournal, clock: WoundClock, findings: OpenFindings) -> None:
        self.journal, self.clock, self.findings = journal, clock, findings
        self.watch = PresenceWatch(journal, clock, findings)

    async def pass_time(self, ms: int) -> None:
        for _ in range(ms // 500):
            self.clock.now_ms += 500
            await self.watch.tick()

    async def beats(self, health: Health, *, retained: bool = False) -> None:
        self.watch.hear(KEY, health, retained=retained)
        await self.watch.tick()

    def awaited(self) -> int:
        """The event that what the agent says waits for, as the journal has it."""
        return [entry.body.seq for entry in self._entries() if isinstance(entry.body, PresenceChanged)][-1]

    def told(self) -> list[bool]:
        return [entry.body.online for entry in self._entries() if isinstance(entry.body, PresenceChanged)]

    def findings_of(self, rule: GatewayRule) -> list[str]:
        """`raised`, `cleared` in order, of one rule."""
        occurrences: set[str] = set()
        story: list[str] = []
        for entry in self._entries():
            if isinstance(entry.body, FindingRaised) and entry.body.rule is rule:
                occurrences.add(entry.body.occurrence)
                story.append("raised")
            if isinstance(entry.body, FindingCleared) and entry.body.occurrence in occurrences:
                story.append("cleared")
        return story

    def _entries(self) -> list[Entry]:
        return list(self.journal.entries_after(0, 1000))


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    clock, findings = WoundClock(), OpenFindings()
    journal = await SqlJournal.open(f"sqlite:///{tmp_path}/g.db", clock, {"findings": findings})
    return Rig(journal, clock, findings)


async def test_an_agent_that_beats_is_journaled_online_once_with_what_it_has_stored(rig: Rig) -> None:
    for polls in range(1, 6):
        await rig.beats(beat(polls, seq=7))
    (entry,) = rig.journal.entries_after(0, 10)
    assert isinstance(entry.body, PresenceChanged)
    assert (entry.body.online, entry.body.epoch, entry.body.seq) == (True, E, 7)


async def test_silence_is_journaled_then_alarmed_then_cleared_when_it_is_back(rig: Rig) -> None:
    await rig.beats(beat(1))
    await rig.beats(beat(2))
    await rig.pass_time(40_000)
    assert rig.told() == [True, False]
    assert rig.findings_of(GatewayRule.MONITORING_LOST) == ["raised"]
    await rig.beats(beat(3))
    assert rig.told() == [True, False, True]
    assert rig.findings_of(GatewayRule.MONITORING_LOST) == ["raised", "cleared"]


async def test_a_retained_health_of_an_agent_that_is_gone_is_alarmed_after_thirty_seconds(rig: Rig) -> None:
    await rig.beats(beat(1), retained=True)
    await rig.pass_time(29_000)
    assert rig.told() == []
    await rig.pass_time(2000)
    assert rig.told() == [False]
    assert rig.findings_of(GatewayRule.MONITORING_LOST) == ["raised"]


async def test_after_a_restart_of_the_gateway_nobody_is_online_until_beats_rise(rig: Rig) -> None:
    await rig.beats(beat(1))
    await rig.beats(beat(2))
    again = Rig(rig.journal, rig.clock, rig.findings)
    await again.watch.start()
    assert again.told() == [True, False]
    await again.beats(beat(3), retained=True)
    assert again.told() == [True, False]
    await again.beats(beat(4))
    assert again.told() == [True, False, True]


async def test_until_the_journal_says_so_a_gateway_that_starts_shows_nothing_of_what_was(rig: Rig) -> None:
    """Its pages are served while that commit is under way: on a slow disk they showed a door as closed that nobody watched."""
    await rig.beats(beat(1))
    await rig.beats(beat(2))
    again = Rig(rig.journal, rig.clock, rig.findings)
    assert again.watch.blind_since_ms() is not None
    await again.watch.start()
    assert again.told() == [True, False]
    assert again.watch.blind_since_ms() is None


async def test_an_agent_that_stays_away_over_a_restart_of_the_gateway_is_still_alarmed(rig: Rig) -> None:
    await rig.beats(beat(1))
    await rig.beats(beat(2))
    again = Rig(rig.journal, rig.clock, rig.findings)
    await again.watch.start()
    await again.pass_time(31_000)
    assert again.findings_of(GatewayRule.MONITORING_LOST) == ["raised"]


async def test_beats_of_a_full_store_vouch_for_nothing_and_make_nothing_last_that_was_said_before(
    rig: Rig,
) -> None:
    """While the journal was away, too, they kept what was shown before: for seconds after both had room again."""
    journal = AwayJournal(rig.journal)
    journal.is_away = False
    rig = Rig(journal, rig.clock, rig.findings)  # type: ignore[arg-type]
    await rig.beats(beat(1, seq=10))
    await rig.beats(beat(2, seq=10))
    rig.watch.reached((SITE, AGENT, E), 10)
    journal.is_away = True
    for polls in range(3, 13):
        await rig.pass_time(2000)
        await rig.beats(beat(polls, seq=10, outbox_pct=100))
    await rig.pass_time(2000)
    await rig.beats(beat(13, seq=14))
    journal.is_away = False
    await rig.pass_time(500)
    assert rig.awaited() == 14


async def test_an_agent_whose_store_is_full_is_offline_until_it_is_not(rig: Rig) -> None:
    for polls, pct in enumerate((99, 99, 100, 100, 99), start=1):
        await rig.beats(beat(polls, seq=polls, outbox_pct=pct))
    assert rig.told() == [True, False, True]
    assert rig.awaited() == 5
    assert rig.findings_of(GatewayRule.MONITORING_LOST) == []


async def test_a_clock_that_is_off_is_a_finding_until_it_is_right(rig: Rig) -> None:
    await rig.beats(beat(1))
    await rig.beats(beat(2, clock_offset_ms=-1500))
    await rig.beats(beat(3, clock_offset_ms=900))
    assert rig.findings_of(GatewayRule.CLOCK_OFFSET) == ["raised", "cleared"]


async def test_a_filling_store_is_a_finding_that_does_not_chatter(rig: Rig) -> None:
    for polls, pct in enumerate((10, 80, 79, 81, 71, 69), start=1):
        await rig.beats(beat(polls, outbox_pct=pct))
    assert rig.findings_of(GatewayRule.STORE_FILLING) == ["raised", "cleared"]


async def test_polls_that_come_late_for_a_minute_are_a_finding_until_a_minute_is_free_of_them(
    rig: Rig,
) -> None:
    """30 beats a minute of 100 polls each: 6 % late raises, 2 % does not clear, a minute with fewer than 1 % does."""
    polls, overruns = 0, 0

    async def minute(late: int) -> list[str]:
        nonlocal polls, overruns
        for _ in range(31):
            polls, overruns = polls + 100, overruns + late
            await rig.beats(beat(polls, overruns=overruns))
            await rig.pass_time(2000)
        return rig.findings_of(GatewayRule.POLL_OVERRUN)

    assert await minute(5) == []
    assert await minute(6) == ["raised"]
    assert await minute(2) == ["raised"]
    assert await minute(0) == ["raised", "cleared"]
    (raised,) = [
        entry.body for entry in rig.journal.entries_after(0, 1000) if isinstance(entry.body, FindingRaised)
    ]
    assert raised.priority is Priority.P3
    assert raised.detail["polls"] == 3000


async def test_an_agent_lags_from_its_first_event_that_is_not_journaled_until_it_is(rig: Rig) -> None:
    await rig.beats(beat(1, seq=5, acked=Position(E, 5, "0" * 64)))
    assert rig.watch.lag_ms(*KEY) == 0
    await rig.beats(beat(2, seq=6, acked=Position(E, 5, "0" * 64)))
    rig.clock.now_ms += 4000
    assert rig.watch.lag_ms(*KEY) == 4000
    rig.watch.reached((SITE, AGENT, E), 6)
    assert rig.watch.lag_ms(*KEY) == 0


async def test_health_is_served_with_the_devices_of_all_its_pages(rig: Rig) -> None:
    one, two = (
        DeviceHealth(up=True, age_ms=1, polls=1, errors=0),
        DeviceHealth(up=False, age_ms=9, polls=1, errors=1),
    )
    rig.watch.hear(KEY, beat(1, devices={"plc1": one}), retained=False)
    rig.watch.hear_page(KEY, HealthPage(E, "b", 2, {"plc2": two}))
    rig.watch.hear_page(KEY, HealthPage(F, "b", 3, {"stranger": two}))
    heard = rig.watch.health_of(*KEY)
    assert heard is not None
    assert dict(heard.health.devices) == {"plc1": one, "plc2": two}
    assert rig.watch.health_of(SITE, "nobody") is None


async def test_what_could_not_be_journaled_is_journaled_by_a_later_tick(rig: Rig) -> None:
    away = AwayJournal(rig.journal)
    watch_ = PresenceWatch(away, rig.clock, rig.findings)
    for polls in (1, 2):
        watch_.hear(KEY, beat(polls), retained=False)
    await watch_.tick()
    assert rig.told() == []
    away.is_away = False
    await watch_.tick()
    assert rig.told() == [True]


async def test_a_watch_that_waits_for_room_to_begin_in_is_alive(tmp_path: Path) -> None:
    """A supervisor that took it for hung would start a gateway on a full disk again and again."""
    journal = AwayJournal(await SqlJournal.open(f"sqlite:///{tmp_path}/gateway.db", WoundClock(), {}))
    advanced = asyncio.Event()
    watching = asyncio.create_task(PresenceWatch(journal, WoundClock(), OpenFindings()).run(advanced.set))
    async with asyncio.timeout(10):
        await advanced.wait()
    assert journal.problem == "away"
    watching.cancel()
    await asyncio.wait([watching])


async def test_what_was_said_before_an_event_that_stays_away_is_believed_no_longer_than_a_silent_agent(
    rig: Rig,
) -> None:
    for polls in (1, 2):
        await rig.beats(beat(polls, seq=7))
    rig.watch.reached((*KEY, E), 7)
    waits: list[int] = []
    for polls in range(3, 7):  # the event was stored right after the second beat
        await rig.pass_time(2000)
        await rig.beats(beat(polls, seq=8))
        waits.append(rig.awaited())
    assert waits == [7, 7, 8, 8]


async def test_a_beat_that_comes_late_and_behind_buys_no_time(rig: Rig) -> None:
    """Beats and the event that they tell of were lost on the way: the last that vouched for what is shown counts."""
    for polls in (1, 2):
        await rig.beats(beat(polls, seq=7))
    rig.watch.reached((*KEY, E), 7)
    await rig.pass_time(5000)
    await rig.beats(beat(3, seq=8))
    assert rig.awaited() == 7
    await rig.pass_time(1000)
    assert rig.awaited() == 8


async def test_while_nobody_looks_at_the_beats_nothing_is_shown_as_how_it_is(rig: Rig) -> None:
    await rig.pass_time(500)
    assert rig.watch.blind_since_ms() is None
    rig.clock.now_ms += 20_000
    await rig.beats(beat(1))
    assert rig.watch.blind_since_ms() is None
    judged_ms = rig.clock.utc_ms()
    rig.clock.now_ms += UNJUDGED_MS
    assert rig.watch.blind_since_ms() is None
    rig.clock.now_ms += 1
    assert rig.watch.blind_since_ms() == judged_ms


async def test_while_nothing_can_be_journaled_nothing_is_shown_as_how_it_is(rig: Rig) -> None:
    """What would have to be shown instead cannot be taken in, however little of it there is."""
    away = AwayJournal(rig.journal)
    again = Rig(away, rig.clock, rig.findings)  # type: ignore[arg-type]
    away.is_away = False
    await again.watch.start()
    assert again.watch.blind_since_ms() is None
    away.is_away = True
    assert again.watch.blind_since_ms() == away.failing_since_ms
