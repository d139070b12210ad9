"""Reading, judging and telling, measured beside a loop that only reads.

    fleet ──Modbus/TCP──▶ the measured process ──▶ MQTT broker ──▶ observer
    └───────────── core B ─────────────┘ core A          └── core B ──┘

The measured process has a core of its own: once it is the whole agent (a rule on every point, every event synced to disk,
sent over a real broker and acknowledged as a gateway would), once a bare loop of pymodbus clients that reads the same
points at the same rate and does nothing with them (`bare_reader`). Everything else shares the other core. Each device
has `points` discrete inputs, one door with one channel each, and one more input by which its machine runs, so that
an open door is a violation after a second. Latency goes from the change at the device to the arrival of its
`guard_changed` at a subscriber, of the bare loop to the moment at which it has seen it; all clocks are
CLOCK_MONOTONIC of this machine. Processor time is /proc/PID/stat over the window, memory is what is resident at its end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.figures import cores, cpu_seconds, percentile
from tests.bench.observer import Counts, Observer, Seen
from tests.servers import Mosquitto

ROOT: Final = Path(__file__).parents[2]
WINDOW_S: Final = 20.0
CHANGES_PER_S: Final = 20.0
SEED: Final = 11
START_MAX_S: Final = 150.0
"""From the start to the end of all that the first answers of a plant bring; twice what 128 000 guards take."""

SETTLE_S: Final = 3.0
"""After the start: what it left in buffers is gone, and clocks, caches and collector are warm."""


@dataclass(frozen=True, slots=True)
class Row:
    """One size of plant; `aims` says what the agent should reach."""

    devices: int
    points: int
    poll_ms: int
    p99_ms: int
    cpu_pct: int
    rss_mb: int | None

    @property
    def points_per_s(self) -> float:
        """Points that must be read each second."""
        return self.devices * self.points * 1000 / self.poll_ms

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.devices} devices x {self.points} points @ {self.poll_ms} ms"


ROWS: Final = (
    Row(100, 30, 100, p99_ms=105, cpu_pct=30, rss_mb=70),
    Row(200, 128, 100, p99_ms=105, cpu_pct=30, rss_mb=180),
    Row(200, 128, 20, p99_ms=25, cpu_pct=60, rss_mb=180),
    Row(1000, 128, 100, p99_ms=108, cpu_pct=65, rss_mb=None),
)


class NotSettledError(Exception):
    """The agent did not come to rest, so there is nothing to measure; the text says how far it got."""


class Change(NamedTuple):
    """A door that changed at its device."""

    at_ns: int
    device: int
    point: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process did in one window. `start_s`: up to the first read of the last device, and up to all told."""

    cpu_pct: float
    rss_mb: float
    polls_share: float
    late: int
    delays_ms: list[float]
    missed: int
    start_s: tuple[float, float] | None = None


def run(seconds: float = WINDOW_S, rows: Sequence[Row] = ROWS) -> None:
    """Measure every row, agent and bare loop in turn, and print the table."""
    own, rest = cores()
    os.sched_setaffinity(0, rest)
    for row in rows:
        print(f"{row.name}: {row.devices * row.points} guards, {row.points_per_s:,.0f} points/s", flush=True)
        with tempfile.TemporaryDirectory(prefix="guardwatch-bench-") as name:
            folder = Path(name)
            try:
                agent = _measure_agent(row, folder, own, seconds)
            except NotSettledError as error:
                print(f"  not measured: {error}", flush=True)
                continue
            bare = _measure_bare(row, folder, own, seconds)
        _print(row, agent, bare)


def _measure_agent(row: Row, folder: Path, core: set[int], seconds: float) -> Figures:
    broker = Mosquitto(folder / "broker")
    with (
        broker,
        _fleet(row, folder / "agent-changes.jsonl") as (ports, log),
        Observer(broker.port) as observer,
    ):
        config = folder / "agent.yaml"
        config.write_text(_plant(row, ports, broker.url), encoding="utf-8")
        started_ns = time.monotonic_ns()
        with _process(["-m", "edge_agent", "run", str(config)], core, folder / "agent.log") as pid:
            _await_rest(row, observer, pid, folder / "agent.log")
            told_ns = observer.last_ns
            time.sleep(SETTLE_S)
            before, cpu_s = observer.counts(), cpu_seconds(pid)
            from_ns = time.monotonic_ns()
            time.sleep(seconds)
            window_s = (time.monotonic_ns() - from_ns) / 1e9
            cpu_s = cpu_seconds(pid) - cpu_s
            rss_mb = _rss_mb(pid)
            after = observer.counts()
            time.sleep(0.5)
        changes, asked_ns = _read_log(log)
    return Figures(
        100 * cpu_s / window_s,
        rss_mb,
        _share(before, after, row),
        after.late - before.late,
        *_pair(changes, observer.seen, from_ns, seconds),
        start_s=((asked_ns - started_ns) / 1e9, (told_ns - started_ns) / 1e9),
    )


def _await_rest(row: Row, observer: Observer, pid: int, log: Path) -> None:
    """Wait until every guard was told and the stream has caught up. Raises `NotSettledError`."""
    deadline = time.monotonic() + START_MAX_S
    has_told_all = observer.has_told_all(row)
    while not (has_told_all() and observer.is_even()):
        if not _rss_mb(pid):
            raise NotSettledError(f"the agent ended: {log.read_text(errors='replace')[-500:]}")
        if time.monotonic() > deadline:
            raise NotSettledError(
                f"after {START_MAX_S:.0f} s {observer.progress()} of {row.devices * row.points}"
            )
        time.sleep(0.1)


def _measure_bare(row: Row, folder: Path, core: set[int], seconds: float) -> Figures:
    out = folder / "bare.jsonl"
    with _fleet(row, folder / "bare-changes.jsonl") as (ports, log):
        words = [str(row.points), str(row.poll_ms), *map(str, ports)]
        command = ["-m", "tests.bench.bare_reader", *words]
        with _process(command, core, out) as pid:
            time.sleep(SETTLE_S)
            cpu_s, from_ns = cpu_seconds(pid), time.monotonic_ns()
            time.sleep(seconds)
            window_s = (time.monotonic_ns() - from_ns) / 1e9
            cpu_s, rss_mb = cpu_seconds(pid) - cpu_s, _rss_mb(pid)
            time.sleep(0.5)
        changes, _ = _read_log(log)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    counts = [
        Counts(line["at_ns"], line["polls"], line["late"])
        for line in lines
        if "polls" in line and line["at_ns"] >= from_ns
    ]
    seen = [
        Seen(line["at_ns"], line["device"], line["point"], line["closed"])
        for line in lines
        if "point" in line
    ]
    late = counts[-1].late - counts[0].late
    share = _share(counts[0], counts[-1], row)
    return Figures(100 * cpu_s / window_s, rss_mb, share, late, *_pair(changes, seen, from_ns, seconds))


def _share(before: Counts, after: Counts, row: Row) -> float:
    """Polls done, of those that were due between two counts."""
    due = row.devices * (after.at_ns - before.at_ns) / 1e6 / row.poll_ms
    return (after.polls - before.polls) / due if due else 0.0


def _pair(
    changes: Sequence[Change], seen: Sequence[Seen], from_ns: int, seconds: float
) -> tuple[list[float], int]:
    """Milliseconds from each change in the window to its arrival, and how many never arrived."""
    arrivals: dict[tuple[int, int, bool], list[int]] = {}
    for item in seen:
        arrivals.setdefault((item.device, item.point, item.closed), []).append(item.at_ns)
    delays: list[float] = []
    missed = 0
    for change in changes:
        if not from_ns <= change.at_ns < from_ns + seconds * 1e9:
            continue
        later = (at for at in arrivals.get(change[1:], ()) if at >= change.at_ns)
        first = next(later, None)
        if first is None:
            missed += 1
        else:
            delays.append((first - change.at_ns) / 1e6)
    return delays, missed


def _print(row: Row, agent: Figures, bare: Figures) -> None:
    for name, item in (("agent", agent), ("bare pymodbus", bare)):
        if not item.delays_ms:
            print(f"  {name:<14} CPU {item.cpu_pct:5.1f} %  nothing arrived, missed {item.missed}")
            return
        late = f"p50 {percentile(item.delays_ms, 50):6.1f}  p99 {percentile(item.delays_ms, 99):6.1f}  max {max(item.delays_ms):6.1f} ms"
        print(
            f"  {name:<14} CPU {item.cpu_pct:5.1f} %  RSS {item.rss_mb:6.1f} MB  {late}"
            f"  n {len(item.delays_ms)}, missed {item.missed}"
            f"  polls {100 * item.polls_share:6.2f} % of due, late {item.late}"
        )
    p99_ms = percentile(agent.delays_ms, 99)
    print(
        f"  {'ratio':<14} CPU {agent.cpu_pct / bare.cpu_pct:5.2f}    RSS {agent.rss_mb / bare.rss_mb:6.2f}"
        f"     p99 {p99_ms / percentile(bare.delays_ms, 99):.2f}"
    )
    aims = [(p99_ms, row.p99_ms, "p99 {} ms"), (agent.cpu_pct, row.cpu_pct, "CPU {} %")]
    aims += [] if row.rss_mb is None else [(agent.rss_mb, row.rss_mb, "RSS {} MB")]
    verdicts = [f"{'within' if got <= aim else 'BEYOND'} {text.format(aim)}" for got, aim, text in aims]
    if agent.start_s is not None:
        read_s, told_s = agent.start_s
        verdicts.append(f"start to all read {read_s:.1f} s, to all told {told_s:.1f} s")
    print(f"  {'aims':<14} {', '.join(verdicts)}", flush=True)


@contextmanager
def _fleet(row: Row, log: Path) -> Iterator[tuple[list[int], Path]]:
    """The fleet's ports, and its log of changes."""
    command = [sys.executable, "-m", "simulators", "load", "--raw", "--json", "--servers", str(row.devices)]
    command += ["--guards", str(row.points), "--changes-per-s", str(CHANGES_PER_S), "--seed", str(SEED)]
    command += ["--listen", "127.0.0.1:0", "--changes-log", str(log)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        told = child.stdout.readline()
        if not told:
            raise SystemExit("the fleet did not start")
        yield [int(address.rpartition(":")[2]) for address in json.loads(told)["modbus"]], log
    finally:
        child.terminate()
        child.wait()


@contextmanager
def _process(arguments: Sequence[str], core: set[int], out: Path) -> Iterator[int]:
    """A Python process on a core of its own; its id."""
    rest = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)  # a child inherits it, with all its threads
    try:
        with out.open("wb") as stdout:
            child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=stdout)
    finally:
        os.sched_setaffinity(0, rest)
    try:
        yield child.pid
        if child.poll() is not None:
            raise SystemExit(f"{arguments[1]} ended by itself with {child.returncode}")
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _read_log(log: Path) -> tuple[list[Change], int]:
    """The fleet's changes, and when every device had been read once."""
    changes, asked_ns = [], 0
    for line in log.read_text().splitlines():
        item = json.loads(line)
        if "asked" in item:
            asked_ns = item["at_ns"]
        else:
            changes.append(Change(item["at_ns"], item["device"], item["point"], item["closed"]))
    return changes, asked_ns


def _plant(row: Row, ports: Sequence[int], broker: str) -> str:
    """A configuration in which every point is a guard of its own."""
    lines = ["site: bench", "agent: gw-01", "labels: {zh: 台, en: Bench}", f"mqtt: {{url: '{broker}'}}"]
    lines += ["store: {path: gw-01.db}", "devices:"]
    lines += [
        f"  plc{n}: {{url: 'modbus+tcp://127.0.0.1:{ports[n]}', poll_ms: {row.poll_ms}, max_rps: 1000}}"
        for n in range(row.devices)
    ]
    lines.append("machines:")
    for n in range(row.devices):
        lines += [f"  m{n}:", f"    labels: {{zh: 机{n}, en: Machine {n}}}", "    kind: mixer"]
        lines += [f"    signals: {{running: {{at: plc{n}/di/{row.points}}}}}", "    guards:"]
        lines += [
            f"      d{point}: {{labels: {{zh: 门{point}, en: Door {point}}}, kind: interlocked_door, "
            f"channels: [{{at: plc{n}/di/{point}}}]}}"
            for point in range(row.points)
        ]
    return "\n".join(lines) + "\n"
