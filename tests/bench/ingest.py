"""How fast the gateway makes events durable: from the broker to the committed journal, with checks, alarms and acks.

    feed ──▶ mosquitto ──▶ the measured gateway: intake ─▶ ingest ─▶ journal (SQLite, synchronous=FULL), folds, notices
    └────── core B ──────┘ └─────────────────────────────── core A ────────────────────────────────┘

The same events three times: through nothing but a paho subscriber that acknowledges each (what the client library
alone costs), through the gateway's whole path, and through it without the broker. The processor's seconds are those of
the measured process, all threads; per processor second is the figure that other work on the machine does not touch.
The last pass, without the broker again, has a stopwatch around each stage; its overhead is in none of the other rows.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Connection

from edge_agent.broker.access import BrokerAccess
from edge_agent.wire.event import Priority
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.intake_paho import PahoIntake
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.adapters.store_sql.recording import SqlRecording
from gateway.adapters.words import load_words
from gateway.domain.book import AlarmBook
from gateway.domain.findings import OpenFindings
from gateway.domain.notify import AlertPlan, Language, Match, Person, Route
from gateway.domain.plant_fold import Plant
from gateway.domain.teller import Teller, Voice
from gateway.ports import Fold, Message
from gateway.services import ingest as ingest_module
from gateway.services.ingest import Ingest
from gateway.services.presence import PresenceWatch
from tests.bench import feed
from tests.bench.figures import cores
from tests.servers import Mosquitto

ROOT: Final = Path(__file__).parents[2]
AGENTS: Final = 10
EVENTS: Final = 20_000
AIM_PER_S: Final = 10_000
BATCH: Final = 500
"""Messages that the row without a broker hands over at once: the intake's limit."""

TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One pass: seconds on the wall, of the processor, and of the processor by thread."""

    wall_s: float
    cpu_s: float
    threads: dict[str, float]


def run() -> None:
    """Measure and print."""
    own, rest = cores()
    os.sched_setaffinity(0, rest)
    events = feed.mixed(AGENTS, EVENTS, int(time.time() * 1000))
    size = sum(len(payload) for _, payload in events) / len(events)
    print(f"{EVENTS} events of {AGENTS} agents, {size:.0f} bytes each on average", flush=True)
    with tempfile.TemporaryDirectory(prefix="guardwatch-bench-") as name:
        folder = Path(name)
        feed.write(events, folder / "events")
        with Mosquitto(folder / "broker") as broker:
            os.sched_setaffinity(0, own)
            _print("bare paho subscriber", _measure_bare(broker.port, folder / "events", rest))
            figures = asyncio.run(_measure_gateway(folder / "one.db", broker.port, folder / "events", rest))
            _print("broker to journal", figures)
        _print("without a broker", asyncio.run(_measure_alone(folder / "two.db", events)))
        with _Stopwatch() as watch:
            asyncio.run(_measure_alone(folder / "three.db", events))
        _print_stages(watch)


def _print(what: str, figures: Figures) -> None:
    split = ", ".join(f"{name} {1e6 * s / EVENTS:.0f}" for name, s in figures.threads.items())
    print(
        f"{what:<22} {EVENTS / figures.wall_s:8,.0f} events/s   {EVENTS / figures.cpu_s:8,.0f} a processor second"
        f"   {1e6 * figures.cpu_s / EVENTS:6.1f} us each ({split})",
        flush=True,
    )


class _Meter:
    """Seconds since it began, on the wall and of the processor, the latter by thread, too."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        self._threads = _thread_seconds()

    def read(self) -> Figures:
        threads = {name: s - self._threads.get(name, 0.0) for name, s in _thread_seconds().items()}
        return Figures(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s, threads)


def _thread_seconds() -> dict[str, float]:
    """Processor seconds of each thread of this process, by name."""
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


@contextmanager
def _feeding(port: int, events: Path, cores: set[int]) -> Iterator[None]:
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "tests.bench.feed"]
    child = subprocess.Popen([*command, str(port), str(events)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait()


def _measure_bare(port: int, events: Path, cores: set[int]) -> Figures:
    """A subscriber that acknowledges each message and does nothing with it."""
    client = Client(CallbackAPIVersion.VERSION2, "bare", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    arrived = 0
    subscribed, first, done = threading.Event(), threading.Event(), threading.Event()

    def take(client: Client, _: object, message: MQTTMessage) -> None:
        nonlocal arrived
        arrived += 1
        client.ack(message.mid, message.qos)
        first.set()
        if arrived == EVENTS:
            done.set()

    client.on_message = take
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("guardwatch/v1/+/+/events", qos=1)
    assert subscribed.wait(10)
    with _feeding(port, events, cores):
        first.wait(TIMEOUT_S)
        meter = _Meter()
        done.wait(TIMEOUT_S)
        figures = meter.read()
    client.disconnect()
    client.loop_stop()
    return figures


class _Rig:
    """The gateway's ingest path, put together as the product does."""

    def __init__(self, journal: SqlJournal, intake: PahoIntake | _Hand, findings: OpenFindings) -> None:
        clock = SystemClock()
        presence = PresenceWatch(journal, clock, findings)
        self.journal = journal
        self.ingest = Ingest(journal, intake, clock, findings, presence)


def _teller() -> Teller:
    people = {"ops": Person("ops", {"en": "Operations"}, None, Language.EN)}
    route = Route(Match(priority=frozenset({Priority.P1, Priority.P2})), ("ops",), ("hook",))
    voice = Voice(Language.EN, load_words(), UTC, "http://127.0.0.1:8080")
    return Teller(AlertPlan(people, (), (route,)), voice)


async def _open(database: Path) -> tuple[SqlJournal, OpenFindings]:
    findings = OpenFindings()
    folds: dict[str, Fold] = {"plant": Plant(), "findings": findings, "book": AlarmBook(_teller())}
    return await SqlJournal.open(f"sqlite:///{database}", SystemClock(), folds), findings


async def _measure_gateway(database: Path, port: int, events: Path, cores: set[int]) -> Figures:
    journal, findings = await _open(database)
    intake = PahoIntake(BrokerAccess("127.0.0.1", port, "bench-gateway"))
    rig = _Rig(journal, intake, findings)
    intake.open()
    await _until(lambda: intake.problem is None)
    task = asyncio.create_task(rig.ingest.run())
    with _feeding(port, events, cores):
        await _until(lambda: rig.ingest.counters.admitted > 0)
        meter, before = _Meter(), rig.ingest.counters.admitted
        await _until(lambda: rig.ingest.counters.admitted == EVENTS)
        figures = meter.read()
    assert not rig.ingest.counters.dropped, "the feed keeps the order"
    task.cancel()
    await intake.close()
    await journal.close()
    share = EVENTS / (EVENTS - before)
    threads = {name: s * share for name, s in figures.threads.items()}
    return Figures(figures.wall_s * share, figures.cpu_s * share, threads)


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(int(TIMEOUT_S / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise SystemExit(f"not done after {TIMEOUT_S:.0f} s")


@dataclass(frozen=True, slots=True)
class _Given:
    """`gateway.ports.Message`."""

    topic: str
    payload: bytes
    retain: bool = False


class _Hand:
    """`gateway.ports.Intake` without a broker: batches of what there is, acks into nothing."""

    def __init__(self, events: Sequence[tuple[str, bytes]]) -> None:
        self._events = deque(_Given(*event) for event in events)
        self.is_empty = asyncio.Event()

    async def batch(self) -> Sequence[Message]:
        if not self._events:
            self.is_empty.set()
            await asyncio.Event().wait()
        return [self._events.popleft() for _ in range(min(BATCH, len(self._events)))]

    def done(self, messages: Iterable[Message]) -> None:
        pass

    def publish_retained(self, topic: str, payload: bytes) -> None:
        pass


async def _measure_alone(database: Path, events: Sequence[tuple[str, bytes]]) -> Figures:
    journal, findings = await _open(database)
    hand = _Hand(events)
    rig = _Rig(journal, hand, findings)
    meter = _Meter()
    task = asyncio.create_task(rig.ingest.run())
    await hand.is_empty.wait()
    figures = meter.read()
    assert rig.ingest.counters.admitted == EVENTS, "every event has its place"
    task.cancel()
    await journal.close()
    return figures


class _Stopwatch:
    """Processor seconds by stage: functions are wrapped while it is entered; time in an inner stage is the inner's."""

    STAGES: Final[Sequence[tuple[str, object, str]]] = (
        ("decode, check the hash", ingest_module, "decode"),
        ("sort, acks", Ingest, "take"),
        ("judge, admit", Ingest, "_store"),
        ("link, row", SqlRecording, "append"),
        ("fold: plant", Plant, "stage"),
        ("fold: alarm book, notices", AlarmBook, "stage"),
        ("fold: findings", OpenFindings, "stage"),
        ("adopt", SqlJournal, "_adopt"),
        ("rows of alarms", SqlRecording, "put_alarm"),
        ("rows of violations", SqlRecording, "put_violation"),
        ("rows of notices", SqlRecording, "add_notice"),
        ("insert", SqlRecording, "flush"),
        ("commit, fsync", Connection, "commit"),
        ("snapshot", SqlJournal, "_snapshots"),
        ("snapshot", SqlJournal, "_store_snapshots"),
    )

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._local = threading.local()
        self._whole: list[tuple[object, str, object]] = []

    def __enter__(self) -> Self:
        for stage, owner, name in self.STAGES:
            whole = getattr(owner, name)
            self._whole.append((owner, name, whole))
            setattr(owner, name, self._wrap(stage, whole))
        self._began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = time.process_time() - self._began
        for owner, name, whole in self._whole:
            setattr(owner, name, whole)

    def _wrap(self, stage: str, whole: Callable[..., object]) -> Callable[..., object]:
        if asyncio.iscoroutinefunction(whole):
            return whole

        @functools.wraps(whole)
        def timed(*values: object, **named: object) -> object:
            inner: list[float] = getattr(self._local, "inner", [])
            self._local.inner = mine = [0.0]
            start = time.thread_time()
            try:
                return whole(*values, **named)
            finally:
                took = time.thread_time() - start
                self.seconds[stage] += took - mine[0]
                if inner:
                    inner[0] += took
                self._local.inner = inner

        return timed


def _print_stages(watch: _Stopwatch) -> None:
    rest = watch.cpu_s - sum(watch.seconds.values())
    for stage, seconds in [
        *sorted(watch.seconds.items(), key=lambda item: -item[1]),
        ("all else: loop, threads, the watch", rest),
    ]:
        print(f"  {stage:<36} {1e6 * seconds / EVENTS:6.1f} us  {100 * seconds / watch.cpu_s:5.1f} %")
