"""From a journaled violation to somebody's screen: real journal, real sockets, real time."""

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.adapters.clock_system import SystemClock
from gateway.adapters.notifier_webhook import WebhookNotifier
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.domain.access import Principal, Role, Via
from gateway.domain.book import AlarmBook
from gateway.domain.channels import WebhookChannel
from gateway.domain.findings import OpenFindings
from gateway.domain.journal import EntryBody
from gateway.domain.notify import AlertPlan, Match, Route
from gateway.domain.teller import Teller
from gateway.services.dispatch import Dispatch
from gateway.services.operate import Done, NoSuchAlarm, Operate, TooLate
from gateway.services.timers import Timers
from tests.unit.gateway.alerting_rig import LI, VOICE, WANG, cleared, event, plan_of, raised

pytestmark = pytest.mark.integration

SECRET = "a shared secret"
PATIENCE_S = 20.0
"""Far beyond what any of this takes: only a failure waits so long."""


@dataclass
class Sink:
    """A webhook receiver: what it got, in order, and how it answers (status, in turn; the last one stays)."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, body in self.got]

    def deliveries(self) -> list[object]:
        return [body["delivery"] for body in self.bodies()]


@pytest.fixture
def sink() -> Iterator[Sink]:
    received = Sink()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                received.got.append((dict(self.headers.items()), body))
                answer = received.answers[0]
                if len(received.answers) > 1:
                    received.answers.pop(0)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        received.url = f"http://127.0.0.1:{server.server_port}/alerts"
        yield received
        server.shutdown()
        thread.join()


@dataclass
class Gateway:
    """The alerting half of a gateway."""

    journal: SqlJournal
    clock: SystemClock
    dispatch: Dispatch
    operate: Operate

    async def append(self, *bodies: EntryBody) -> None:
        await self.journal.transact(lambda recording: [recording.append(body) for body in bodies])

    def now_ms(self) -> int:
        return self.clock.utc_ms()


@asynccontextmanager
async def running(folder: Path, sink: Sink, plan: AlertPlan) -> AsyncIterator[Gateway]:
    clock = SystemClock()
    teller = Teller(plan, VOICE)
    book, findings = AlarmBook(teller), OpenFindings()
    url = f"sqlite:///{folder / 'gateway.db'}"
    journal = await SqlJournal.open(url, clock, {"alarms": book, "findings": findings})
    hook = WebhookNotifier(WebhookChannel(sink.url, SECRET))
    dispatch = Dispatch(journal, clock, findings, {"hook": hook})
    timers = Timers(journal, clock, book, teller, dispatch.wake)
    tasks = [asyncio.create_task(dispatch.run()), asyncio.create_task(timers.run())]
    try:
        yield Gateway(journal, clock, dispatch, Operate(journal))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hook.close()
        await journal.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the receiver lives in another thread
            await asyncio.sleep(0.01)


TO_LI = plan_of(Route(Match(), (LI.id,), ("hook",)))


async def test_a_violation_reaches_the_hook_signed_and_in_full(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, sink, TO_LI) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        await until(lambda: len(sink.got) == 1)
    headers, body = sink.got[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "OCC/raised/1/li-qiang/hook"
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Guardwatch-Signature"] == f"sha256={digest}"
    alert = json.loads(body)
    assert alert["delivery"] == headers["Idempotency-Key"]
    assert set(alert) == {
        *("delivery", "event", "to", "language", "title", "text", "priority", "site", "area", "machine"),
        *("guard", "rule", "occurrence", "alarm", "since", "at", "url"),
    }
    assert set(alert["to"]) == {"id", "name", "role", "mobile", "email"}
    assert (alert["event"], alert["priority"], alert["alarm"]) == ("raised", "P1", 1)


async def test_everyone_who_was_told_of_it_is_told_that_it_is_over_and_nobody_else(
    tmp_path: Path, sink: Sink
) -> None:
    plan = plan_of(
        Route(Match(), (LI.id,), ("hook",)),
        Route(Match(site=frozenset({"elsewhere"})), (WANG.id,), ("hook",)),
    )
    async with running(tmp_path, sink, plan) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        await until(lambda: len(sink.got) == 1)
        await gateway.append(event(cleared(), gateway.now_ms(), seq=3))
        await until(lambda: len(sink.got) == 2)
    assert sink.deliveries() == ["OCC/raised/1/li-qiang/hook", "OCC/cleared/1/li-qiang/hook"]


async def test_an_unacknowledged_alarm_is_repeated_until_it_is_acknowledged(
    tmp_path: Path, sink: Sink
) -> None:
    plan = plan_of(Route(Match(), (LI.id,), ("hook",), repeat_s=1))
    who = Principal("li-qiang", Role.SHIFT_MANAGER, Via.SESSION)
    async with running(tmp_path, sink, plan) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        await until(lambda: len(sink.got) == 3)
        assert isinstance(await gateway.operate.acknowledge(1, who), Done)
        told = len(sink.got)
        await gateway.append(event(cleared(), gateway.now_ms(), seq=3))
        await until(lambda: sink.deliveries()[-1] == "OCC/cleared/1/li-qiang/hook")
    assert sink.deliveries()[:3] == [
        "OCC/raised/1/li-qiang/hook",
        "OCC/repeated/1/li-qiang/hook",
        "OCC/repeated/2/li-qiang/hook",
    ]
    assert len(sink.got) <= told + 2  # one repeat may have been on its way when it was acknowledged


async def test_a_failing_receiver_is_tried_again_with_the_same_key_until_it_takes_it(
    tmp_path: Path, sink: Sink
) -> None:
    sink.answers = [503, 429, 200]
    async with running(tmp_path, sink, TO_LI) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        await until(lambda: gateway.dispatch.counts[("hook", "delivered")] == 1)
    assert sink.deliveries() == ["OCC/raised/1/li-qiang/hook"] * 3
    assert len({body for _, body in sink.got}) == 1


async def test_a_restart_goes_on_with_what_was_not_delivered_and_repeats_what_came_due_meanwhile(
    tmp_path: Path, sink: Sink
) -> None:
    plan = plan_of(Route(Match(), (LI.id,), ("hook",), repeat_s=1))
    sink.answers = [503]
    async with running(tmp_path, sink, plan) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        await until(lambda: gateway.dispatch.counts[("hook", "retryable")] >= 1)
    sink.answers, before = [200], len(sink.got)
    async with running(tmp_path, sink, plan):
        await until(lambda: any(str(key).startswith("OCC/repeated/") for key in sink.deliveries()))
    assert sink.deliveries()[before] == "OCC/raised/1/li-qiang/hook"


async def test_a_refusal_for_good_is_a_dead_letter_and_an_alarm_that_ends_with_the_next_delivery(
    tmp_path: Path, sink: Sink
) -> None:
    sink.answers = [400, 400, 200]
    async with running(tmp_path, sink, TO_LI) as gateway:
        await gateway.append(event(raised("ONE"), gateway.now_ms()))
        await until(lambda: gateway.dispatch.counts[("hook", "rejected")] == 2)
        await gateway.append(event(raised("TWO"), gateway.now_ms(), seq=3))
        await until(lambda: gateway.dispatch.counts[("hook", "delivered")] >= 1)
        failing = await gateway.journal.transact(lambda recording: recording.find_alarm(2))
    assert failing is not None
    assert (failing.rule, failing.priority, failing.letter) == ("alert_failing", "P2", "D")
    assert [body["rule"] for body in sink.bodies()] == [
        "guard_open_motion",
        "alert_failing",
        "guard_open_motion",
    ]


async def test_what_was_over_before_it_was_heard_of_is_told_in_one_summary(
    tmp_path: Path, sink: Sink
) -> None:
    async with running(tmp_path, sink, TO_LI) as gateway:
        long_ago = gateway.now_ms() - 3_600_000
        backlog: list[EntryBody] = []
        for number in range(30):
            backlog.append(event(raised(f"OCC-{number}"), long_ago, seq=2 * number + 2))
            backlog.append(event(cleared(f"OCC-{number}"), long_ago + 8_000, seq=2 * number + 3))
        await gateway.append(*backlog[:31])  # the batch ends between a raise and its clear
        await gateway.append(*backlog[31:])
        await until(lambda: len(sink.got) == 1)
        (summary,) = sink.bodies()
    assert summary["event"] == "summary"
    assert "30" in str(summary["title"])


async def test_only_the_first_to_acknowledge_does(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, sink, TO_LI) as gateway:
        await gateway.append(event(raised(), gateway.now_ms()))
        li = Principal("li-qiang", Role.SHIFT_MANAGER, Via.SESSION)
        wang = Principal("wang-fang", Role.MAINTENANCE, Via.TOKEN)
        first, second = await asyncio.gather(
            gateway.operate.acknowledge(1, li, "on my way"), gateway.operate.acknowledge(1, wang)
        )
        assert isinstance(first, Done)
        assert isinstance(second, TooLate)
        for outcome in (first, second):
            assert outcome.alarm.acknowledged is not None
            assert outcome.alarm.acknowledged.who == "li-qiang"
        assert isinstance(await gateway.operate.acknowledge(7, li), NoSuchAlarm)
        assert isinstance(await gateway.operate.annotate(1, wang, "switch replaced"), Done)
        assert isinstance(await gateway.operate.annotate(7, wang, "?"), NoSuchAlarm)
