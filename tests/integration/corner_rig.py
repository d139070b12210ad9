"""A real agent, a real broker and a real gateway around one stand-in controller, and the books that must balance.

Everything that a corner of delivery needs can be done to it while it is stopped or runs: the agent's store is a file
that can be filled, damaged, copied and lost, the gateway's journal likewise, the broker takes any configuration. What
counts is `balance`: the gateway's journal against the agent's store, hole by hole and occurrence by occurrence.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from edge_agent.wire.codec import decode
from edge_agent.wire.event import (
    Event,
    Json,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.journal import (
    EdgeEvent,
    EntryBody,
    GapFound,
    GatewayRule,
    ReconciledClear,
    ReconciledRaise,
)
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import RegisterBank, Table
from tests import whole_plant
from tests.integration.edge_rig import CONFIG, DEADLINE_S, ROOT, AgentProcess
from tests.integration.gateway_process import GatewayProcess
from tests.integration.old_stores import R01, end_positions
from tests.servers import Mosquitto
from tests.stored import read_entries


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    """Return as soon as `is_so()` holds; fail, naming `what`, when it never does."""
    whole_plant.wait_for(what, is_so, timeout_s=DEADLINE_S)


@contextmanager
def served(bank: RegisterBank) -> Iterator[int]:
    """The bank over Modbus/TCP from a thread of its own, so that a test may wait as it likes; gives the port."""
    ready: list[int] = []
    is_ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with RegisterBankServer(bank) as server:
            ready.append(server.address[1])
            is_ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert is_ready.wait(30)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Plant:
    """The whole of it. `agent`, `broker` and `gateway` can be killed, stopped and started one by one."""

    def __init__(self, folder: Path, *, broker_conf: str = "", gateway_conf: str = "") -> None:
        self.folder = folder
        self.broker = Mosquitto(folder / "broker", extra_conf=broker_conf)
        self.gateway = GatewayProcess(folder / "gateway", self.broker.port, more=gateway_conf)
        self.bank = RegisterBank([1])
        self.bank.set_bits(1, Table.DI, 0, [True, True, False, False, False, True])
        self.agent = AgentProcess(folder / "edge" / "agent.yaml")
        self.store = folder / "edge/var/gw-01.db"
        self._modbus = 0
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.broker)
            modbus = exits.enter_context(served(self.bank))
            exits.enter_context(self.gateway)
            exits.callback(self.agent.kill)
            self._modbus = modbus
            self.configure(self.agent)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def configure(self, agent: AgentProcess) -> None:
        """Write the configuration of this agent, or of one like it, where it is to be."""
        agent.config.parent.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(mqtt=self.broker.url, modbus=self._modbus, delivery="gateway")
        text = text.replace("size_max_mb: 64", "size_max_mb: 16").replace(
            "devices:", "state_report_s: 10\ndevices:"
        )
        agent.config.write_text(text)

    def open_findings(self) -> list[GatewayRule]:
        """The gateway's own findings that are not cleared, but for the agent's absence once it is stopped."""
        return [rule for rule in self.gateway.open_findings() if rule is not GatewayRule.MONITORING_LOST]

    def set_door(self, *, closed: bool) -> None:
        """Move the door of the running machine."""
        self.bank.set_bits(1, Table.DI, 4, [True, False])
        self.bank.set_bits(1, Table.DI, 0, [closed, closed])

    def open_door(self) -> None:
        """Open the door of the running machine; returns when the gateway knows."""
        before = len(self.raised())
        self.set_door(closed=False)
        wait_for("the violation in the journal", lambda: len(self.raised()) > before)

    def close_door(self) -> None:
        """Close it; returns when the gateway knows that it is over."""
        self.set_door(closed=True)
        wait_for("no violation open", lambda: not self.open_occurrences())

    def stop_agent(self) -> None:
        """Ask it to stop."""
        self.agent.send(signal.SIGTERM)
        wait_for("the agent's end", lambda: not self.agent.is_running)

    def raised(self) -> list[str]:
        """Occurrences of R01 that the gateway knows of, newest first."""
        return [str(item["occurrence"]) for item in self.findings(R01)]

    def open_occurrences(self) -> list[str]:
        """Those of them that are not over."""
        return [str(item["occurrence"]) for item in self.findings(R01) if item["state"] == "active"]

    def journaled(self) -> list[Event]:
        """The agent's events in the journal, in order."""
        return [body.event for body in self.gateway.bodies(EdgeEvent)]

    def stored(self, path: Path | None = None) -> list[Event]:
        """The events in the agent's store that can be read, in order."""
        events = (decode(entry.payload) for entry in read_entries(path or self.store))
        return [event for event in events if isinstance(event, Event)]

    def settle(self, store: Path | None = None) -> None:
        """Wait until the journal holds the last event of the agent's store."""
        wait_for("the journal to hold the agent's last event", lambda: self.holds_end_of(store or self.store))

    def holds_end_of(self, store: Path) -> bool:
        """Whether the journal holds the last event of a store."""
        _, end = end_positions(store)
        with closing(sqlite3.connect(f"file:{self.gateway.database}?mode=ro", uri=True)) as database:
            row = database.execute(
                "SELECT last_seq, last_hash FROM epochs WHERE epoch=?", (end.epoch,)
            ).fetchone()
        return bool(row == (end.seq, end.hash))

    def findings(self, rule: str) -> list[dict[str, Json]]:
        """The gateway's findings of a rule as REST shows them, newest first."""
        items = self.gateway.get(f"/api/v1/violations?rule={rule}")["items"]
        assert isinstance(items, list)
        return [item for item in items if isinstance(item, dict)]

    def wait_for_finding(self, rule: str, state: str) -> dict[str, Json]:
        """The newest finding of a rule, once its state is `active` or `cleared`, as REST shows it."""
        wait_for(f"{rule} {state}", lambda: bool(found := self.findings(rule)) and found[0]["state"] == state)
        return self.findings(rule)[0]

    def verify_agent(self) -> subprocess.CompletedProcess[str]:
        """What `guardwatch-agent verify` says of the store."""
        return _say(["edge_agent", "verify", str(self.store)])

    def quarantined(self) -> list[Event]:
        """The events that were refused and are kept raw."""
        items = self.gateway.get("/api/v1/quarantine?limit=1000")["items"]
        assert isinstance(items, list)
        found = [decode(base64.b64decode(str(item["payload"]))) for item in items if isinstance(item, dict)]
        return [event for event in found if isinstance(event, Event)]

    def balance(
        self,
        *,
        lost: Iterable[tuple[str, int]] = (),
        refused: Iterable[Event] = (),
        verifies: bool = True,
    ) -> None:
        """The books: the journal a gapless prefix but for `lost`, which is stated; every occurrence once, none open.

        `lost` are epoch and seq of what is missing before the last event held of its epoch; `refused` the agent's
        events that lie in quarantine.
        """
        entries = self.gateway.entries()
        events = [body.event for body in entries if isinstance(body, EdgeEvent)]
        gaps = [body for body in entries if isinstance(body, GapFound) and body.final]
        seqs: dict[str, list[int]] = {}
        for event in events:
            seqs.setdefault(event.epoch, []).append(event.seq)
        missing = set()
        for epoch, found in seqs.items():
            assert found == sorted(set(found)), "each run in its order, nothing twice"
            missing |= {(epoch, seq) for seq in range(1, found[-1])} - {(epoch, seq) for seq in found}
        assert missing == set(lost)
        assert [key for key in missing if not any(_states(gap, *key) for gap in gaps)] == []
        accounted = {event.hash for event in [*events, *refused]}
        assert [event.position for event in self.stored() if event.hash not in accounted] == []
        _balance_occurrences(entries)
        assert self.open_occurrences() == []
        told = _say(["gateway", "verify", str(self.gateway.config)])
        assert (told.returncode, told.stderr) == (0, "")
        if verifies:
            told = self.verify_agent()
            assert (told.returncode, told.stderr) == (0, "")


def _say(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """What one of our programs says."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _states(gap: GapFound, epoch: str, seq: int) -> bool:
    return gap.epoch == epoch and gap.from_seq <= seq <= (gap.to_seq or seq)


def _balance_occurrences(entries: Sequence[EntryBody]) -> None:
    """Every occurrence is raised once and ends once, be it by the agent or by a report.

    What the report of a twin ended, because its own violation goes on there, its agent may end itself later on.
    """
    raised: list[str] = []
    ended: set[str] = set()
    cleared: list[str] = []
    for entry in entries:
        match entry.event.body if isinstance(entry, EdgeEvent) else entry:
            case ViolationRaised(occurrence=occurrence) | ReconciledRaise(occurrence=occurrence):
                raised.append(occurrence)
            case ViolationCleared(occurrence=occurrence):
                cleared.append(occurrence)
                ended.add(occurrence)
            case ReconciledClear(occurrence=occurrence):
                assert occurrence not in ended
                ended.add(occurrence)
    assert len(raised) == len(set(raised))
    assert len(cleared) == len(set(cleared))
    assert ended == set(raised)
