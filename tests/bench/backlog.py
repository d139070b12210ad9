"""What waits in an agent's store, brought to the gateway's journal by real processes: a burst, and a day without a network.

    agent's store ──▶ agent ──▶ mosquitto ──▶ gateway ──▶ journal, webhook
                     └──── core B ──────┘    └─ core A ─┘

The burst: 25 600 guards that flip in one poll, a P1 raised on nearly each of 256 machines among them; the last must be in the
journal within 5 s of the first, and every P1 at the webhook within 2 s of its own entry. The backlog: a day at ten
times the design rate of a quarter of an event a second, drained at 2 000 a second. Every event must be there, once, in
order. Times are the gateway's (of journal entries) and this process's wall clock (of the webhook): one machine, one clock.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import load_or_create_key
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed
from edge_agent.wire.event import (
    Basis,
    Body,
    GuardChanged,
    GuardState,
    MachineChanged,
    Priority,
    Quality,
    ViolationChanged,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.instants import iso_utc
from tests.bench import feed
from tests.bench.figures import cores, cpu_seconds, percentile
from tests.server_process import accepts_connections, free_port
from tests.servers import Mosquitto
from tests.whole_plant import Mailbox, wait_for

ROOT: Final = Path(__file__).parents[2]
BURST_MACHINES: Final = 256
BURST_GUARDS: Final = 100
QUIET_MACHINES: Final = 10
"""At the burst's end: the state report after it knows of no violation, and takes back what it meets in one batch."""

BURST_AIM_S: Final = 5.0
TOLD_AIM_S: Final = 2.0
BACKLOG: Final = 216_000
BACKLOG_AIM_PER_S: Final = 2000
COMMIT: Final = 500
"""Events in one commit of the agent."""

START_S: Final = 20
"""The burst is labelled so far ahead: the agent must start and connect first, which no running one must, and what is older
than five seconds on arrival would be held back as late news."""

TIMEOUT_S: Final = 900.0

_AGENT: Final = """\
site: bench
agent: gw-0
labels: {{zh: 台, en: Bench}}
mqtt: {{url: "{mqtt}"}}
store: {{path: gw-0.db, size_max_mb: 512}}
devices:
  plc1: {{url: "modbus+tcp://127.0.0.1:{modbus}"}}
machines:
  m0:
    labels: {{zh: 机, en: Machine}}
    guards:
      d0: {{labels: {{zh: 门, en: Door}}, kind: interlocked_door, channels: [{{at: plc1/di/0}}]}}
"""

_GATEWAY: Final = """\
http: {{listen: "127.0.0.1:{http}"}}
mqtt: {{url: "{mqtt}"}}
journal: {{url: "sqlite:///gateway.db"}}
people: {{ops: {{name: {{zh: 值班, en: Operations}}}}}}
channels: {{hook: {{kind: webhook, url: "http://127.0.0.1:{hook}/"}}}}
routes: [{{match: {{priority: [P1, P2]}}, to: [ops], via: [hook]}}]
"""


@dataclass(frozen=True, slots=True)
class Journaled:
    """An event in the journal: its key, when it was recorded (gateway UTC), and of which occurrence it tells."""

    epoch: str
    seq: int
    recorded_ms: int
    occurrence: str | None


def run_burst() -> None:
    """Every guard of a large plant flips in one poll."""
    at_ms = int((time.time() + START_S) * 1000)
    delivered = _deliver(_flips(iso_utc(at_ms)), at_ms)
    events, told = delivered.events, delivered.told_ms
    _say(f"burst: {len(events)} events journaled", _span_s(events), BURST_AIM_S, delivered)
    raised = {item.occurrence: item.recorded_ms for item in events if item.occurrence}
    delays_s = [(told[name] - at_ms) / 1000 for name, at_ms in raised.items() if name in told]
    if len(delays_s) < len(raised):
        raise SystemExit(f"only {len(delays_s)} of {len(raised)} P1 were told")
    print(
        f"burst: {len(delays_s)} of {len(raised)} P1 told, half of them within {percentile(delays_s, 50):.2f} s"
    )
    _say("burst: the last P1 told after its own entry", max(delays_s), TOLD_AIM_S)


def run_backlog() -> None:
    """A day without a network."""
    at_ms = int((time.time() - 86_400) * 1000)
    bodies = (event.body for event in feed.lives("gw-0", at_ms))
    waiting = (body for body in bodies if isinstance(body, _LIVES))
    delivered = _deliver(itertools.islice(waiting, BACKLOG), at_ms)
    took_s, count = _span_s(delivered.events), len(delivered.events)
    _say(
        f"backlog: {count} events, {count / took_s:,.0f} a second",
        took_s,
        count / BACKLOG_AIM_PER_S,
        delivered,
    )


_LIVES: Final = (GuardChanged, MachineChanged, ViolationRaised, ViolationChanged, ViolationCleared)
"""What a plant brings; starts and checkpoints are the store's own, reports the running agent's."""


@dataclass(frozen=True, slots=True)
class _Delivered:
    """Everything journaled, in order; when the webhook first heard of each occurrence; both programs' processor seconds.

    The gateway's from where it answers, the agent's with its start, which takes most of a second.
    """

    events: Sequence[Journaled]
    told_ms: Mapping[str, float]
    gateway_cpu_s: float
    agent_cpu_s: float


def _say(what: str, took_s: float, aim_s: float, delivered: _Delivered | None = None) -> None:
    verdict = "within" if took_s <= aim_s else "BEYOND"
    cost = ""
    if delivered is not None:
        gateway_us, agent_us = (
            1e6 * cpu_s / len(delivered.events) for cpu_s in (delivered.gateway_cpu_s, delivered.agent_cpu_s)
        )
        cost = f"; processor an event: gateway's {gateway_us:.0f} us, agent's {agent_us:.0f} us"
    print(f"{what}: {took_s:.2f} s, {verdict} {aim_s:.0f} s{cost}", flush=True)


def _span_s(events: Sequence[Journaled]) -> float:
    return (events[-1].recorded_ms - events[0].recorded_ms) / 1000


def _flips(since: str) -> Iterator[Body]:
    """Every door opens, and after those of a machine, one P1."""
    for machine in range(BURST_MACHINES):
        for guard in range(BURST_GUARDS):
            yield GuardChanged(
                f"m{machine}", f"d{guard}", GuardState.OPEN, GuardState.CLOSED, None, None, Quality.GOOD
            )
        if machine >= BURST_MACHINES - QUIET_MACHINES:
            continue
        yield ViolationRaised(
            f"m{machine}",
            "d0",
            None,
            "guard_open_motion",
            Priority.P1,
            Basis.PROVEN,
            f"burst-{machine}",
            since,
            None,
            {"grade": "C"},
        )


def _deliver(bodies: Iterable[Body], at_ms: int) -> _Delivered:
    """Put `bodies` into an agent's store, let the processes bring them over, read the journal."""
    own, rest = cores()
    os.sched_setaffinity(0, rest)
    with tempfile.TemporaryDirectory(prefix="guardwatch-bench-") as name, _mailbox() as mailbox:
        folder = Path(name)
        tail = _fill(folder, bodies, at_ms)
        with Mosquitto(folder / "broker") as broker:
            http = free_port()
            values = {"mqtt": broker.url, "modbus": free_port(), "http": http, "hook": mailbox.port}
            for file, text in (("agent.yaml", _AGENT), ("gateway.yaml", _GATEWAY)):
                (folder / file).write_text(text.format(**values), encoding="utf-8")
            with _process("gateway", own, folder) as gateway:
                wait_for("the gateway answers", lambda: accepts_connections(http), timeout_s=TIMEOUT_S)
                with _process("edge_agent", rest, folder) as agent:
                    before_s = cpu_seconds(gateway.pid)
                    _await_journaled(folder, tail, gateway)
                    spent_s = cpu_seconds(gateway.pid) - before_s, cpu_seconds(agent.pid)
                    time.sleep(2 * TOLD_AIM_S)
        events = _read_journal(folder)[:tail]
    offset_s = time.time() - time.monotonic()
    told_ms: dict[str, float] = {}
    for item in mailbox.told:
        if item.body["event"] == "raised":
            told_ms.setdefault(str(item.body["occurrence"]), 1000 * (item.at_s + offset_s))
    _demand_all(events, tail)
    return _Delivered(events, told_ms, *spent_s)


@contextmanager
def _mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    try:
        yield mailbox
    finally:
        mailbox.stop()


def _fill(folder: Path, bodies: Iterable[Body], at_ms: int) -> int:
    """An agent's store with `bodies`, committed as a running agent commits; how many events it holds."""
    began_s = time.monotonic()
    key = load_or_create_key(folder / "gw-0.key")
    run = Run(feed.SITE, "gw-0", "boot", "1.0", "c0ffee")
    with closing(EventStore(folder / "gw-0.db", run, size_max_mb=512, sign=key.sign)) as store:
        mono = MonoNs(NS_PER_S)
        store.begin_epoch(WallPair(mono, UtcNs(at_ms * 1_000_000), synced=True))
        source = iter(bodies)
        while chunk := list(itertools.islice(source, COMMIT)):
            pair = WallPair(mono, UtcNs(at_ms * 1_000_000), synced=True)
            stored = store.commit([Draft(mono, body) for body in chunk], {}, pair)
            assert isinstance(stored, Committed), "512 MB hold them"
        tail = store.tail
    print(f"{tail} events stored by the agent in {time.monotonic() - began_s:.0f} s", flush=True)
    return tail


@contextmanager
def _process(module: str, core: set[int], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One of our programs on its core, with its file as configuration."""
    file = {"gateway": "gateway.yaml", "edge_agent": "agent.yaml"}[module]
    words = ["taskset", "-c", ",".join(map(str, core)), sys.executable, "-m", module, "run", file]
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with (folder / f"{module}.log").open("wb") as log:
        child = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _await_journaled(folder: Path, count: int, gateway: subprocess.Popen[bytes]) -> None:
    deadline, held = time.monotonic() + TIMEOUT_S, 0
    while held < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"after {TIMEOUT_S:.0f} s {held} of {count} events are journaled")
        if gateway.poll() is not None:
            raise SystemExit(f"the gateway ended: {(folder / 'gateway.log').read_text()[-1000:]}")
        time.sleep(0.1)
        with contextlib.suppress(sqlite3.Error), _journal(folder) as database:
            found = database.execute("SELECT sum(last_seq) FROM epochs").fetchone()
            held = found[0] or 0


def _journal(folder: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(f"file:{folder}/gateway.db?mode=ro", uri=True))


def _read_journal(folder: Path) -> list[Journaled]:
    query = (
        "SELECT epoch, seq, recorded_at_ms, occurrence FROM journal WHERE kind='edge_event' ORDER BY position"
    )
    with _journal(folder) as database:
        return [Journaled(*row) for row in database.execute(query)]


def _demand_all(events: Sequence[Journaled], tail: int) -> None:
    """Everything that was stored, once and in order."""
    epoch = events[0].epoch
    if [(item.epoch, item.seq) for item in events] != [(epoch, n + 1) for n in range(tail)]:
        raise SystemExit("events are missing, doubled or out of order")
