"""Notices out of the door and deadlines in time: services on virtual time over the real journal."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.wire.event import Priority
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.access import Principal, Role, Via
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EntryBody, Mark
from gateway.domain.notice import Alert
from gateway.domain.notify import AlertPlan, Match, Route
from gateway.domain.occurred import LATE_MS
from gateway.domain.teller import HOLD_MS, SUMMARY_AFTER_MS, Teller
from gateway.ports import Delivered, Rejected, Retryable
from gateway.services.dispatch import DRAIN_S, FAILING_ATTEMPTS, IN_FLIGHT_MAX, Dispatch, pause_ms
from gateway.services.operate import Operate
from gateway.services.timers import Timers
from tests.simulation.virtual_loop import VirtualLoop, run_virtual, virtual_loop
from tests.unit.gateway.alerting_rig import LI, START_MS, VOICE, WANG, cleared, event, plan_of, raised

Outcome = Delivered | Retryable | Rejected
DOWN, REFUSED, TAKEN = Retryable("HTTP 503"), Rejected("HTTP 400"), Delivered()


class LoopClock:
    """Gateway time that follows virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def utc_ms(self) -> int:
        return START_MS + self._loop.now_ns // 1_000_000

    def monotonic_ms(self) -> int:
        return self._loop.now_ns // 1_000_000


@dataclass
class Receiver:
    """A channel: what came, when (ms after the start), and what it answers; `takes_s` is how long it thinks."""

    answer: Callable[[Alert], Outcome] = lambda _alert: TAKEN
    takes_s: float = 0.0
    got: list[tuple[int, str]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    async def send(self, alert: Alert) -> Outcome:
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await asyncio.sleep(self.takes_s)
            self.got.append((virtual_loop().now_ns // 1_000_000, alert.delivery))
            self.alerts.append(alert)
            return self.answer(alert)
        finally:
            self.busy -= 1

    def keys(self) -> list[str]:
        return [key for _, key in self.got]


def answers(*outcomes: Outcome) -> Callable[[Alert], Outcome]:
    """These, one after the other; the last one stays."""
    waiting = list(outcomes)
    return lambda _alert: waiting.pop(0) if len(waiting) > 1 else waiting[0]


@dataclass
class Alerting:
    journal: SqlJournal
    clock: LoopClock
    findings: OpenFindings
    dispatch: Dispatch

    async def append(self, *bodies: EntryBody) -> None:
        await self.journal.transact(lambda recording: [recording.append(body) for body in bodies])


@asynccontextmanager
async def alerting(folder: Path, plan: AlertPlan, **receivers: Receiver) -> AsyncIterator[Alerting]:
    clock = LoopClock(virtual_loop())
    teller = Teller(plan, VOICE)
    book, findings = AlarmBook(teller), OpenFindings()
    journal = await SqlJournal.open(
        f"sqlite:///{folder}/gateway.db", clock, {"book": book, "findings": findings}
    )
    dispatch = Dispatch(journal, clock, findings, receivers)
    timers = Timers(journal, clock, book, teller, dispatch.wake)
    tasks = [asyncio.create_task(dispatch.run()), asyncio.create_task(timers.run())]
    try:
        yield Alerting(journal, clock, findings, dispatch)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await journal.close()
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


def story(scene: Callable[[], Coroutine[object, object, None]]) -> None:
    run_virtual(scene)


TO_LI = plan_of(Route(Match(), (LI.id,), ("hook",)))
RAISED = "OCC/raised/1/li-qiang/hook"


def test_a_first_alert_leaves_with_the_commit_that_decided_it(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await asyncio.sleep(10)
            await gateway.append(event(raised(), START_MS + 10_000))
            await asyncio.sleep(1)
        assert hook.got == [(10_000, RAISED)]

    story(scene)


def test_a_failed_send_is_tried_again_after_1_s_doubling_to_60_s(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver(answer=lambda _alert: DOWN)
        async with alerting(
            tmp_path, plan_of(Route(Match(), (LI.id,), ("hook",), 86_400)), hook=hook
        ) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(300)
        times = [at for at, key in hook.got if key == RAISED]
        gaps = [round((after - before) / 1000) for before, after in itertools.pairwise(times)]
        assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    story(scene)


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (10_000, 60_000)]
)
def test_pauses_never_exceed_a_minute(failures: int, pause: int) -> None:
    assert pause_ms(failures) == pause


def test_a_channel_that_keeps_failing_is_an_alarm_which_ends_when_it_delivers(tmp_path: Path) -> None:
    async def scene() -> None:
        hook, mail = Receiver(answer=answers(*[DOWN] * FAILING_ATTEMPTS, TAKEN)), Receiver()
        plan = plan_of(
            Route(Match(rule=frozenset({"guard_open_motion"})), (LI.id,), ("hook",)),
            Route(Match(rule=frozenset({"alert_failing"})), (LI.id,), ("mail",)),
        )
        async with alerting(tmp_path, plan, hook=hook, mail=mail) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(100)
        assert [(alert.rule, alert.event, alert.priority) for alert in mail.alerts] == [
            ("alert_failing", "raised", Priority.P2),
            ("alert_failing", "cleared", Priority.P2),
        ]
        assert "hook" in mail.alerts[0].title

    story(scene)


def test_one_of_several_people_who_refuses_does_not_make_a_channel_call_itself_for_ever(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        hook = Receiver(answer=lambda alert: REFUSED if alert.to.id == LI.id else TAKEN)
        async with alerting(
            tmp_path, plan_of(Route(Match(), (LI.id, WANG.id), ("hook",))), hook=hook
        ) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(100)
            assert len(hook.got) < 10
            assert gateway.findings.open_of("alert_failing") == []  # type: ignore[arg-type]  # an enum of text

    story(scene)


def test_what_was_refused_for_good_is_not_sent_again(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver(answer=lambda _alert: REFUSED)
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(100)
        assert hook.keys().count(RAISED) == 1

    story(scene)


def test_an_end_is_never_told_before_its_beginning_got_through(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver(answer=answers(DOWN, DOWN, DOWN, TAKEN))
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(1.5)
            await gateway.append(event(cleared(), START_MS + 1_500, seq=3))
            await asyncio.sleep(20)
        assert hook.keys() == [RAISED] * 4 + ["OCC/cleared/1/li-qiang/hook"]

    story(scene)


def test_the_urgent_go_first_and_no_more_than_a_few_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver(takes_s=1.0)
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            many = [event(raised(f"P3-{n}", priority=Priority.P3), seq=n + 2) for n in range(20)]
            await gateway.append(*many, event(raised("P1"), seq=99))
            await asyncio.sleep(30)
        assert hook.busiest == IN_FLIGHT_MAX
        assert hook.keys().index("P1/raised/1/li-qiang/hook") < IN_FLIGHT_MAX
        assert len(hook.got) == 21

    story(scene)


def test_a_slow_channel_does_not_hold_up_another(tmp_path: Path) -> None:
    async def scene() -> None:
        hook, mail = Receiver(takes_s=50.0), Receiver()
        async with alerting(
            tmp_path, plan_of(Route(Match(), (LI.id,), ("hook", "mail"))), hook=hook, mail=mail
        ) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(1)
            assert len(mail.got) == 1
            assert hook.got == []

    story(scene)


def test_a_stop_lets_what_is_under_way_finish(tmp_path: Path) -> None:
    async def scene() -> None:
        quick, slow = Receiver(takes_s=DRAIN_S / 2), Receiver(takes_s=DRAIN_S * 2)
        plan = plan_of(Route(Match(), (LI.id,), ("quick", "slow")))
        async with alerting(tmp_path, plan, quick=quick, slow=slow) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(0.1)
        assert (len(quick.got), len(slow.got)) == (1, 0)
        again = Receiver()
        async with alerting(tmp_path, plan, quick=again, slow=again):
            await asyncio.sleep(1)
        assert again.keys() == ["OCC/raised/1/li-qiang/slow"]

    story(scene)


def test_notices_for_a_channel_that_is_no_more_are_dead_letters(tmp_path: Path) -> None:
    async def scene() -> None:
        async with alerting(tmp_path, TO_LI, hook=Receiver(answer=lambda _alert: DOWN)) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(0.1)
        async with alerting(tmp_path, plan_of(), mail=Receiver()) as gateway:
            await asyncio.sleep(1)
            notices = await gateway.journal.transact(lambda recording: recording.notices_of(1))
        assert [(now.state, now.outcome) for now in notices] == [
            ("dead", "the channel is configured no more")
        ]

    story(scene)


def test_a_mistake_of_ours_in_a_send_ends_dispatch_instead_of_hiding(tmp_path: Path) -> None:
    async def scene() -> None:
        def break_(_alert: Alert) -> Outcome:
            raise ZeroDivisionError

        async with alerting(tmp_path, TO_LI, hook=Receiver(answer=break_)) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        story(scene)


def test_repeats_come_at_their_period_until_acknowledged(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(1000)
            who = Principal("li-qiang", Role.SHIFT_MANAGER, Via.SESSION)
            await Operate(gateway.journal).acknowledge(1, who)
            await asyncio.sleep(10_000)
        assert [round(at / 1000) for at, _ in hook.got] == [0, 300, 600, 900]
        assert hook.keys()[1:] == [f"OCC/repeated/{n}/li-qiang/hook" for n in (1, 2, 3)]

    story(scene)


def test_each_route_repeats_at_its_own_period(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        plan = plan_of(Route(Match(), (LI.id,), ("hook",), 100), Route(Match(), (WANG.id,), ("hook",), 250))
        async with alerting(tmp_path, plan, hook=hook) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(520)
        times = {
            who: [round(at / 1000) for at, key in hook.got if key.split("/")[3] == who]
            for who in (LI.id, WANG.id)
        }
        assert times == {LI.id: [0, 100, 200, 300, 400, 500], WANG.id: [0, 250, 500]}

    story(scene)


def test_a_repeat_missed_while_the_gateway_was_down_is_told_once_at_start(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(event(raised()))
            await asyncio.sleep(1)
        await asyncio.sleep(3600)
        async with alerting(tmp_path, TO_LI, hook=hook):
            await asyncio.sleep(301)
        assert [round(at / 1000) for at, _ in hook.got] == [0, 3601, 3901]

    story(scene)


def backlog(count: int, ago_ms: int = 3_600_000) -> list[EntryBody]:
    """Violations that began and ended while nobody heard."""
    bodies: list[EntryBody] = []
    for n in range(count):
        bodies.append(event(raised(f"OCC-{n}"), START_MS - ago_ms, seq=2 * n + 2))
        bodies.append(event(cleared(f"OCC-{n}"), START_MS - ago_ms + 8_000, seq=2 * n + 3))
    return bodies


def test_a_backlog_of_what_is_over_is_one_message_per_person(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(
            tmp_path, plan_of(Route(Match(), (LI.id, WANG.id), ("hook",))), hook=hook
        ) as gateway:
            events: Sequence[EntryBody] = backlog(25)
            for first in range(0, len(events), 7):  # batches end anywhere
                await gateway.append(*events[first : first + 7])
            await asyncio.sleep(60)
        assert [(alert.event, alert.to.id) for alert in hook.alerts] == [
            ("summary", LI.id),
            ("summary", WANG.id),
        ]
        assert hook.got[0][0] == SUMMARY_AFTER_MS
        assert "25" in hook.alerts[0].title

    story(scene)


def test_a_late_raise_that_still_stands_is_told_by_itself(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(event(raised(), START_MS - LATE_MS - 1))
            await asyncio.sleep(60)
        assert hook.got == [(HOLD_MS, RAISED)]

    story(scene)


def test_a_raise_that_is_known_to_be_late_though_not_since_when_is_held_back_like_any_late_one(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(replace(event(raised()), marks=(Mark.LATE,)))
            await asyncio.sleep(1)
            await gateway.append(event(cleared(), START_MS + 1000, seq=3))
            await asyncio.sleep(60)
        assert [alert.event for alert in hook.alerts] == ["summary"]

    story(scene)


def test_a_raise_and_its_clear_in_one_transaction_are_no_alarm_call_however_fresh(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(*backlog(1, ago_ms=1_000))
            await asyncio.sleep(60)
        assert [alert.event for alert in hook.alerts] == ["summary"]

    story(scene)


def test_summaries_survive_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver()
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            await gateway.append(*backlog(3))
            await asyncio.sleep(1)
        async with alerting(tmp_path, TO_LI, hook=hook):
            await asyncio.sleep(60)
        assert [alert.event for alert in hook.alerts] == ["summary"]

    story(scene)


def test_in_a_flood_what_ended_is_written_down_together_and_no_send_waits_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        hook = Receiver(takes_s=1.0)
        async with alerting(tmp_path, TO_LI, hook=hook) as gateway:
            commits: list[int] = []
            await gateway.append(*(event(raised(f"P1-{n}"), seq=n + 2) for n in range(40)))
            gateway.journal.subscribe(lambda entries: commits.append(len(entries)))
            await asyncio.sleep(40 / IN_FLIGHT_MAX + 0.5)
            assert len(set(hook.keys())) == len(hook.got) == 40
            assert len(commits) < 40

    story(scene)
