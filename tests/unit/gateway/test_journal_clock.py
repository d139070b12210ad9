"""Journal time: never back, never standing; it leaps when the journal says so, and nothing that waits is due by that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.accounts_admin import AccountAdmin
from gateway.adapters.accounts_sql import SESSION_IDLE_MS, SqlAccounts
from gateway.adapters.accounts_tables import open_accounts
from gateway.adapters.clock_system import SLOW_PARTS, STEP_MIN_MS, SystemClock
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.access import Role, SignedIn
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import ClockStepped, TimerFired
from gateway.domain.teller import Teller
from gateway.ports import ClockStep
from gateway.services import clock_watch
from gateway.services.clock_watch import follow_clock, watch_clock
from gateway.services.timers import Timers
from tests.unit.gateway.alerting_rig import EVERYTHING_TO_LI, VOICE, listed
from tests.unit.gateway.journal_rig import AwayJournal

DAY_MS = 86_400_000
NO_STEP = ClockStep(0, 0)


class Hands:
    """A wall clock and a monotonic one, wound apart."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000
        self.mono_ms = 50_000

    def run(self, ms: int) -> None:
        self.wall_ms += ms
        self.mono_ms += ms

    def clock(self) -> SystemClock:
        return SystemClock(wall_ms=lambda: self.wall_ms, mono_ms=lambda: self.mono_ms)


def test_time_is_wall_time_while_both_clocks_agree() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.run(1234)
    assert clock.utc_ms() == 1_001_234
    assert clock.monotonic_ms() == 51_234
    assert clock.step() == NO_STEP


def test_a_step_forward_waits_until_it_is_journaled() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.run(100)
    hands.wall_ms += 3_600_000
    hands.run(100)
    assert clock.utc_ms() == 1_000_200
    step = clock.step()
    assert step == ClockStep(3_600_000, 3_600_000)
    clock.take_step(step)
    assert clock.utc_ms() == hands.wall_ms
    assert clock.step() == NO_STEP


def test_a_small_step_forward_is_slewing_and_is_not_told() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms += 900
    assert clock.utc_ms() == hands.wall_ms
    assert clock.step() == NO_STEP


def test_a_step_back_is_told_and_leaps_nowhere() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms -= 3_600_000
    assert clock.step() == ClockStep(-3_600_000, 0)
    clock.take_step(clock.step())
    assert clock.step() == NO_STEP


def test_back_and_forth_is_two_steps_and_no_leap() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms -= 3_600_000
    clock.take_step(clock.step())
    hands.run(1600)
    assert clock.step() == NO_STEP
    hands.wall_ms += 3_600_000
    assert clock.step() == ClockStep(3_600_000, 0)
    assert clock.utc_ms() == hands.wall_ms


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3000),
            st.sampled_from([0, 0, 500, -500, 5000, -3_600_000, 3_600_000, 10 * DAY_MS, -20_000 * DAY_MS]),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_whatever_the_wall_does_time_goes_on_at_its_pace_between_leaps(
    moves: list[tuple[int, int, bool]],
) -> None:
    """At most a slewing second faster, at most a sixteenth slower: no deadline is due by a step."""
    hands = Hands()
    clock = hands.clock()
    for ran_ms, stepped_ms, is_told in moves:
        before_ms = clock.utc_ms()
        hands.run(ran_ms)
        hands.wall_ms += stepped_ms
        gone_ms = clock.utc_ms() - before_ms
        assert ran_ms - ran_ms // SLOW_PARTS - 1 <= gone_ms <= ran_ms + STEP_MIN_MS
        if is_told:
            step = clock.step()
            clock.take_step(step)
            assert clock.utc_ms() == before_ms + gone_ms + step.leap_ms


def test_a_step_back_slows_time_down_until_the_wall_has_caught_up() -> None:
    hands = Hands()
    clock = hands.clock()
    before = clock.utc_ms()
    hands.wall_ms -= 10_000
    readings = []
    for _ in range(10_000 * SLOW_PARTS // 100):
        hands.run(100)
        readings.append(clock.utc_ms())
    assert readings == sorted(readings)
    assert readings[0] > before
    assert readings[-1] == hands.wall_ms


def test_asking_often_does_not_keep_it_from_slowing_down() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms -= 1000
    for _ in range(1600):
        hands.run(1)
        clock.utc_ms()
    assert clock.utc_ms() == 1_000_000 + 1600 - 1600 // SLOW_PARTS


def test_it_begins_no_earlier_than_the_journal_ends() -> None:
    hands = Hands()
    clock = hands.clock()
    clock.not_before(2_000_000)
    hands.run(160)
    assert clock.utc_ms() == 2_000_000 + 150


# the watch, over a real journal


@dataclass
class Watched:
    """A gateway's journal, book, timers and accounts on one clock."""

    hands: Hands
    clock: SystemClock
    journal: SqlJournal
    book: AlarmBook
    timers: Timers
    accounts: SqlAccounts
    secret: str

    async def watch(self, turns: int = 1) -> None:
        """So many turns of the watch."""
        left = asyncio.Event()
        count = 0

        def advance() -> None:
            nonlocal count
            count += 1
            if count == turns:
                left.set()

        watching = asyncio.create_task(watch_clock(self.journal, self.clock, self.accounts, advance))
        await asyncio.wait_for(left.wait(), 30)
        watching.cancel()

    def told(self) -> list[ClockStepped]:
        return [
            entry.body
            for entry in self.journal.entries_after(0, 1000)
            if isinstance(entry.body, ClockStepped)
        ]

    async def raise_alarm(self) -> None:
        await self.journal.transact(lambda recording: recording.append(listed("OCC")))

    async def fired(self) -> int:
        """How often people were told again."""
        await self.timers._step()
        return sum(isinstance(entry.body, TimerFired) for entry in self.journal.entries_after(0, 1000))

    def repeat_in_ms(self) -> int:
        due_ms = self.book.next_deadline_ms()
        assert due_ms is not None
        return due_ms - self.clock.utc_ms()


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(clock_watch, "WATCH_S", 0.0)
    hands = Hands()
    clock, teller, findings = hands.clock(), Teller(EVERYTHING_TO_LI, VOICE), OpenFindings()
    book, url = AlarmBook(teller), f"sqlite:///{tmp_path}/g.db"
    journal = await SqlJournal.open(url, clock, {"book": book, "findings": findings})
    engine = open_accounts(url)
    token = AccountAdmin(engine, "test").create_token("board", Role.VIEWER, clock.utc_ms())
    accounts = SqlAccounts(engine, clock)
    signed_in = await accounts.sign_in_with_token(token, "here")
    assert isinstance(signed_in, SignedIn)
    timers = Timers(journal, clock, book, teller, lambda: None)
    yield Watched(hands, clock, journal, book, timers, accounts, signed_in.secret)
    await journal.close()
    engine.dispose()


@pytest.mark.parametrize("step_ms", [3_600_000, 10 * DAY_MS, 4000 * DAY_MS])
async def test_a_step_forward_makes_no_repeat_due_and_ends_no_session(watched: Watched, step_ms: int) -> None:
    await watched.raise_alarm()
    due_in_ms = watched.repeat_in_ms()
    watched.hands.wall_ms += step_ms
    assert await watched.fired() == 0, "nobody has told of the step yet"
    await watched.watch()
    assert watched.told() == [ClockStepped(step_ms, step_ms)]
    assert watched.clock.utc_ms() == watched.hands.wall_ms
    assert await watched.fired() == 0
    assert watched.repeat_in_ms() == due_in_ms
    assert await watched.accounts.session(watched.secret) is not None
    watched.hands.run(due_in_ms)
    assert await watched.fired() == 1


async def test_an_alarm_between_a_step_and_its_entry_is_repeated_in_time(watched: Watched) -> None:
    watched.hands.wall_ms += 10 * DAY_MS
    await watched.raise_alarm()
    due_in_ms = watched.repeat_in_ms()
    await watched.watch()
    assert watched.repeat_in_ms() == due_in_ms


@pytest.mark.parametrize("step_ms", [-3_600_000, -20_000 * DAY_MS])
async def test_a_step_back_is_in_the_journal_and_hardly_delays_a_repeat(
    watched: Watched, step_ms: int
) -> None:
    await watched.raise_alarm()
    due_in_ms = watched.repeat_in_ms()
    watched.hands.wall_ms += step_ms
    await watched.watch(2)
    assert watched.told() == [ClockStepped(step_ms, 0)]
    watched.hands.run(due_in_ms)
    assert await watched.fired() == 0
    watched.hands.run(due_in_ms // (SLOW_PARTS - 1) + 1)
    assert await watched.fired() == 1
    assert await watched.accounts.session(watched.secret) is not None


async def test_sessions_last_as_long_as_ever_after_a_step(watched: Watched) -> None:
    watched.hands.wall_ms += 10 * DAY_MS
    await watched.watch()
    watched.hands.run(SESSION_IDLE_MS - 1000)
    assert await watched.accounts.session(watched.secret) is not None
    watched.hands.run(SESSION_IDLE_MS + 1)
    assert await watched.accounts.session(watched.secret) is None


async def test_a_step_that_cannot_be_journaled_waits_and_time_with_it(watched: Watched) -> None:
    away = AwayJournal(watched.journal)
    watched.hands.wall_ms += DAY_MS
    turn = watched.journal
    watched.journal = away  # type: ignore[assignment]  # as much of a journal as the watch needs
    await watched.watch()
    watched.hands.run(5000)
    assert watched.clock.utc_ms() == watched.hands.wall_ms - DAY_MS
    away.is_away = False
    await watched.watch()
    watched.journal = turn
    assert watched.told() == [ClockStepped(DAY_MS, DAY_MS)]
    assert watched.clock.utc_ms() == watched.hands.wall_ms


async def test_a_standby_follows_the_wall_without_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watch, "WATCH_S", 0.0)
    hands = Hands()
    clock = hands.clock()
    hands.wall_ms += DAY_MS
    following = asyncio.create_task(follow_clock(clock))
    await asyncio.sleep(0)
    following.cancel()
    assert clock.utc_ms() == hands.wall_ms
