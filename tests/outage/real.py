"""The outage with real processes: agent and controllers on a plant floor of their own, the link to the server room cut.

    hall ──Modbus/TCP──▶ agent (fsync on a real disk) ──link──▶ mosquitto ──▶ gateway ──▶ journal, webhook

The hall lives at `speed` times ten times the design rate while the link is cut, so that a day's events fit into the time
there is, and at ten times the design rate afterwards: what it does then queues behind the backlog. The hall takes its next
beat only when the agent has read it often enough to have seen the ones before; an agent that is starved (the machine may
have other work) makes the day longer, never less full. Without root the broker is stopped instead of the link: to agent and
gateway that is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final, TypeAlias, cast

from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank, Table
from simulators.served import Served
from simulators.servers import find_mosquitto
from tests.chaos.configs import write_broker
from tests.chaos.mailbox import Mailbox
from tests.chaos.place import Place, PlantFloor
from tests.chaos.plant import wait_until
from tests.chaos.process import Part
from tests.outage import books
from tests.outage.hall import BEAT_S, EVENTS_A_BEAT, RATE, TURN, Hall, config
from tests.outage.verdict import Outcome
from tests.server_process import accepts_connections, free_port, require

Say: TypeAlias = "Callable[[str], None]"
"""Tells of progress."""

POLL_MS: Final = 250
READS: Final = 3
"""Of the agent within `TURN` / 2 beats, before the hall goes on."""

UNKNOWN_S: Final = 9.0
"""6 s after an agent's last heartbeat the board shows UNKNOWN; a loaded machine gets half as much again."""

DRAIN_S: Final = 600.0
"""When nobody waits any longer; what is demanded is less."""

SETTLE_S: Final = 20.0
UP_S: Final = 60.0
TELL_EVERY_S: Final = 30.0

_GATEWAY: Final = """\
http: {{listen: "127.0.0.1:{http}"}}
mqtt: {{url: "mqtt://127.0.0.1:{mqtt}"}}
journal: {{url: "sqlite:///gateway.db"}}
auth: {{anonymous: viewer}}
people: {{ops: {{name: {{zh: 值班, en: Operations}}}}}}
channels: {{hook: {{kind: webhook, url: "http://127.0.0.1:{hook}/"}}}}
routes: [{{match: {{priority: [P1, P2]}}, to: [ops], via: [hook]}}]
"""


def now_ms() -> int:
    """The clock that the agent's events tell: CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Floor:
    """The hall's controller on Modbus/TCP, in a thread of this process, on the plant floor."""

    def __init__(self, place: Place, port: int) -> None:
        self.hall = Hall(now_ms())
        self.beat_s = BEAT_S
        self.reads = 0
        self._place, self._port = place, port
        self._bank = RegisterBank([1])
        self._read_at: deque[int] = deque(maxlen=TURN // 2)
        self._is_up, self._is_over = threading.Event(), threading.Event()
        self._is_lively = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Serve; nothing moves yet."""
        self._show()
        self._thread.start()
        assert self._is_up.wait(UP_S), "the hall's controller does not come up"

    def live(self, *, is_lively: bool) -> None:
        """Let beats happen, or no more."""
        self._is_lively = is_lively

    def stop(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join()

    def _serve(self) -> None:
        self._place.enter()
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with RegisterBankServer(self._bank, port=self._port, log=self._note):
            self._is_up.set()
            next_s = time.monotonic()
            while not self._is_over.is_set():
                await asyncio.sleep(min(self.beat_s, 0.05))
                if not self._is_lively:
                    next_s = time.monotonic()
                elif time.monotonic() >= next_s and self._is_seen():
                    next_s = max(next_s + self.beat_s, time.monotonic() - self.beat_s * TURN / 2)
                    self._read_at.append(self.reads)
                    self.hall.beat(now_ms())
                    self._show()

    def _is_seen(self) -> bool:
        """Whether what turned half a `TURN` ago has been read often enough."""
        is_full = len(self._read_at) == self._read_at.maxlen
        return not is_full or self.reads - self._read_at[0] >= READS

    def _note(self, served: Served) -> None:
        self.reads += served.values is not None

    def _show(self) -> None:
        self._bank.set_bits(1, Table.DI, 0, self.hall.inputs)


class Rig:
    """All parts, running."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        is_root = os.geteuid() == 0
        self.place: Place = stack.enter_context(PlantFloor() if is_root else Place())
        self.mailbox = Mailbox()
        stack.callback(self.mailbox.stop)
        self._mqtt, self._http, modbus = free_port(), free_port(), free_port()
        self.floor = Floor(self.place, modbus)
        self.store, self.journal = folder / "edge" / "gw-01.db", folder / "server" / "gateway.db"
        for path in (self.store, self.journal):
            path.parent.mkdir(parents=True)
        room = self.place.server_room
        write_broker(folder / "mosquitto.conf", self._mqtt, sorted({"127.0.0.1", room}), None)
        agent = config(broker=f"{room}:{self._mqtt}", modbus_port=modbus, poll_ms=POLL_MS)
        (folder / "edge" / "agent.yaml").write_text(agent)
        gateway = _GATEWAY.format(http=self._http, mqtt=self._mqtt, hook=self.mailbox.port)
        (folder / "server" / "gateway.yaml").write_text(gateway)
        self._build()
        self.floor.start()
        stack.callback(self.floor.stop)
        for part in self.parts:
            stack.callback(part.close)
            stack.callback(part.stop)
            part.start()
            part.wait_ready()

    def _build(self) -> None:
        folder, python = self.folder, [sys.executable, "-m"]
        mosquitto = require(find_mosquitto(), "mosquitto")
        broker = [str(mosquitto.path), "-c", str(folder / "mosquitto.conf")]
        gateway = [*python, "gateway", "run", str(folder / "server" / "gateway.yaml")]
        agent = [*python, "tests.outage.synced", "edge_agent", "run", str(folder / "edge" / "agent.yaml")]
        env = dict(os.environ)
        self.broker = Part(
            "broker",
            broker,
            mosquitto.environment(),
            folder / "broker.log",
            is_ready=lambda: accepts_connections(self._mqtt),
        )
        self.gateway = Part("gateway", gateway, env, folder / "gateway.log", is_ready=self._answers)
        self.agent = Part("agent", self.place.command(agent), env, folder / "agent.log")
        self.parts = (self.broker, self.gateway, self.agent)

    def cut(self) -> None:
        """Nothing gets from the plant floor to the server room any more."""
        if isinstance(self.place, PlantFloor):
            self.place.cut()
        else:
            self.broker.stop()

    def heal(self) -> None:
        """The link is back."""
        if isinstance(self.place, PlantFloor):
            self.place.heal()
        else:
            self.broker.start()

    def get(self, path: str) -> dict[str, object]:
        """A document of the gateway. Raises OSError, ValueError."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http}{path}", timeout=30) as answer:
                return cast("dict[str, object]", json.load(answer))
        except HTTPException as error:
            raise OSError(f"{path}: {error!r}") from error

    def board(self) -> dict[str, str]:
        """Every door as the board shows it."""
        return books.shown_on(self.get("/api/v1/board"))

    def _answers(self) -> bool:
        try:
            return self.get("/readyz")["status"] != "unavailable"
        except (OSError, ValueError):
            return False

    def holds_all(self) -> bool:
        """Whether the store's newest event is the journal's."""
        stored = books.newest(self.store, "event", "n")
        return stored is not None and stored == books.newest(self.journal, "journal", "position")

    def measure(self) -> None:
        """Sizes; and nobody may have ended by himself."""
        for part in self.parts:
            part.measure()
            part.tend()
            if part.history.ended:
                raise TimeoutError(f"{part.name} ended by itself: {part.history.ended}")


@dataclass(frozen=True, slots=True)
class Scale:
    """How long the link is cut (of the hall's own time), how fast that time passes, and how long it lives on."""

    hours: float = 24.0
    speed: float = 100.0

    @property
    def beats(self) -> int:
        """Of the time without a link."""
        return round(self.hours * 3600 / BEAT_S)


def live_through(scale: Scale, folder: Path, say: Say) -> Outcome:
    """The whole story. Raises TimeoutError when it cannot be brought to its end."""
    with ExitStack() as stack:
        rig = Rig(folder, stack)
        floor = rig.floor
        wait_until("the board knows the hall", lambda: _is_shown(rig), timeout_s=UP_S)
        rig.cut()
        cut_ms = now_ms()
        say(f"link cut; {scale.beats} beats at {RATE * scale.speed:.0f} events a second")
        floor.beat_s = BEAT_S / scale.speed
        floor.live(is_lively=True)
        wrong_board = _pass_the_day(rig, scale, say)
        floor.beat_s = BEAT_S
        rig.heal()
        up_ms = now_ms()
        say(f"link back after {(up_ms - cut_ms) / 1000:.0f} s")
        stored = books.newest(rig.store, "event", "n")
        _drain(rig, stored, say)
        time.sleep(2 * BEAT_S)
        floor.live(is_lively=False)
        wrong_board += _settle(rig)
        offset_ms = time.time_ns() // 1_000_000 - now_ms()
        rig.agent.stop()
        wait_until("the agent's last words are journaled", rig.holds_all, timeout_s=UP_S)
        say("drained; reading the books")
        journal = books.read_journal(rig.journal)
        store = books.read_store(rig.store)
        findings = books.account(floor.hall.turns, journal, store)
        drain = books.measure(journal, cut_ms=cut_ms, up_ms=up_ms, offset_ms=offset_ms)
        figures = {
            "events in the agent's store": len(store),
            "turns of doors": sum(len(turns) for turns in floor.hall.turns.values()),
            "reads": floor.reads,
            "store, MB": rig.store.stat().st_size // 1_000_000,
            "messages to people": len(rig.mailbox.told),
            **{f"max RSS of {part.name}, MB": part.history.rss_kb_max // 1024 for part in rig.parts},
        }
        return Outcome(findings, wrong_board, journal.own_findings, drain, figures, up_ms - cut_ms)


def _is_shown(rig: Rig) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return rig.board() == books.expected_board(rig.floor.hall.turns)
    return False


def _pass_the_day(rig: Rig, scale: Scale, say: Say) -> list[str]:
    """Until the beats are over; what the board showed meanwhile that nobody could know."""
    wrong: list[str] = []
    began_s = told_s = time.monotonic()
    while (beats := rig.floor.hall.beats) < scale.beats:
        time.sleep(1.0)
        now_s = time.monotonic()
        if now_s < began_s + UNKNOWN_S:
            continue
        rig.measure()
        known = [f"{door} {state}" for door, state in rig.board().items() if state != "unknown"]
        if known:
            wrong.append(f"{now_s - began_s:.0f} s after the cut the board shows {', '.join(known[:3])} …")
        if now_s >= told_s + TELL_EVERY_S:
            told_s = now_s
            hours = beats * BEAT_S / 3600
            say(f"{hours:.1f} of {scale.hours:g} h: {beats * EVENTS_A_BEAT} events, {rig.floor.reads} reads")
    return wrong


def _drain(rig: Rig, stored: tuple[str, int] | None, say: Say) -> None:
    """Until what had waited is journaled."""
    assert stored is not None
    deadline_s = time.monotonic() + DRAIN_S
    told_s = time.monotonic()
    while (held := books.newest(rig.journal, "journal", "position")) is None or (
        held[0] == stored[0] and held[1] < stored[1]
    ):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {DRAIN_S:.0f} s the journal is at {held} of {stored}")
        if time.monotonic() > told_s + TELL_EVERY_S / 3:
            told_s = time.monotonic()
            say(f"journaled {held[1] if held else 0} of {stored[1]}")
        time.sleep(0.2)
        rig.measure()


def _settle(rig: Rig) -> list[str]:
    """Nothing moves any more: what board and log show otherwise than it is."""
    found: list[str] = []

    def is_right() -> bool:
        found[:] = books.what_is_wrong(rig.floor.hall.turns, rig.board(), rig.journal)
        return rig.holds_all() and not found

    with contextlib.suppress(TimeoutError):
        wait_until("all is well", is_right, timeout_s=SETTLE_S)
    return found
