"""A gateway without broker or agents: real journal, folds, accounts, API and board; the test says what agents said.

`python -m tests.board_rig FOLDER PORT` serves the demonstration plant as a process of its own, for tests that stop or
kill a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.wire.chain import seed_hash
from edge_agent.wire.codec import Stamp, seal
from edge_agent.wire.event import (
    AgentStarted,
    Basis,
    Body,
    ClockState,
    GuardChanged,
    GuardState,
    Json,
    MachineChanged,
    Position,
    Priority,
    Quality,
    ViolationCleared,
    ViolationRaised,
)
from edge_agent.wire.heads import Head
from edge_agent.wire.status import AgentModel, GuardModel, MachineModel
from edge_agent.wire.structure import plain
from gateway.adapters.accounts_admin import AccountAdmin
from gateway.adapters.accounts_sql import SqlAccounts
from gateway.adapters.accounts_tables import open_accounts
from gateway.adapters.clock_system import SystemClock
from gateway.adapters.signatures import load_or_create_key
from gateway.adapters.store_sql.alarm_reads import SqlAlarmReads
from gateway.adapters.store_sql.head_reads import read_reach
from gateway.adapters.store_sql.journal import SqlJournal
from gateway.api.application import build_application, with_limits
from gateway.api.context import Check, Context, Gauge, Site
from gateway.api.server import ApiServer, bind
from gateway.domain.access import Role
from gateway.domain.board import Beat, View
from gateway.domain.book import AlarmBook
from gateway.domain.documents import Signs, agent_document, gap_document
from gateway.domain.findings import OpenFindings
from gateway.domain.heads import make_heads
from gateway.domain.instants import iso_utc
from gateway.domain.journal import AgentModelled, EdgeEvent, EntryBody, MachineModelled, PresenceChanged
from gateway.domain.listing import GapRow, Interval, Page, Query, RefusedPayload
from gateway.domain.plant_fold import Plant
from gateway.ports import Fold
from gateway.services.changes import Changes
from gateway.services.live import Live
from gateway.services.operate import Operate

SITE, AGENT = "changyi", "gw-01"


class NoStreams:
    """`gateway.ports.StreamReads` of a plant whose streams have no gaps."""

    def gaps(self) -> Mapping[tuple[str, str], Sequence[GapRow]]:
        return {}

    def timeline(self, guard: tuple[str, str, str], from_ms: int, to_ms: int) -> Sequence[Interval]:
        return [Interval(from_ms, to_ms, GuardState.UNKNOWN)]

    def quarantine(self, query: Query) -> Page[RefusedPayload]:
        return Page((RefusedPayload(1, 0, "t", None, None, "not JSON", b"\xff"),), None)


@dataclass
class ScriptedStream:
    """Mints an agent's events in one chain."""

    site: str = SITE
    agent: str = AGENT
    epoch: str = "01K0000000000000000000000A"
    seq: int = 0
    prev: str = field(default="")

    def event(self, body: Body, at: str) -> EdgeEvent:
        """The next event, as it is journaled."""
        self.seq += 1
        prev = self.prev or seed_hash(self.site, self.agent, self.epoch)
        stamp = Stamp(
            self.site, self.agent, self.epoch, self.seq, "boot-1", self.seq, at, ClockState.SYNCED, prev
        )
        sealed = seal(stamp, body)
        self.prev = sealed.hash
        return EdgeEvent(sealed, at)

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq, self.prev)


class BoardRig:
    """Open with `board_rig`; `url` is the server's."""

    def __init__(self, folder: Path, journal: SqlJournal, clock: SystemClock, plant: Plant) -> None:
        self.journal = journal
        self.clock = clock
        self.plant = plant
        self.stream = ScriptedStream()
        self.beats: dict[tuple[str, str], Beat] = {}
        self.checks: dict[str, Check] = {"journal": Check(ok=True, detail="writable", is_vital=True)}
        self.engine = open_accounts(f"sqlite:///{folder}/gateway.db")
        self.admin = AccountAdmin(self.engine, "test")
        self.accounts = SqlAccounts(self.engine, clock)
        self.alarms = SqlAlarmReads(journal.readers)
        self.streams = NoStreams()
        changes = Changes(self.view, self.alarms, lambda site, agent: self.agent((site, agent), ()))
        self.live = Live(journal, clock, changes.render, journal.position, lambda: False)
        self.port = 0
        self.key_file = folder / "gateway.db.key"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def view(self) -> View:
        return View(self.plant.state, self.beats, self.clock.utc_ms())

    def agent(self, key: tuple[str, str], gaps: Sequence[GapRow]) -> Json:
        return agent_document(self.view(), key, [gap_document(gap) for gap in gaps], Signs(0))

    def context(self, anonymous: Role | None) -> Context:
        async def checks() -> Mapping[str, Check]:
            return self.checks

        return Context(
            site=Site("", "Asia/Shanghai", "en", anonymous, is_alerting=True),
            clock=self.clock,
            accounts=self.accounts,
            live=self.live,
            alarms=self.alarms,
            operate=Operate(self.journal),
            streams=self.streams,
            agent=self.agent,
            view=self.view,
            unacknowledged=self.alarms.unacknowledged,
            checks=checks,
            gauges=lambda: [Gauge("test_gauge", "One", 1.0), Gauge("test_reads_total", "Two", 2.0)],
            heads=self.heads,
        )

    def heads(self) -> Sequence[Head]:
        """Signed with a key that `heads` on this folder's journal would use too."""
        key = load_or_create_key(self.key_file)
        reach = read_reach(self.journal.readers)
        return make_heads(reach, self.clock.utc_ms(), key.public_key, key.sign)

    def token(self, role: Role) -> str:
        """A new API token of this role."""
        return self.admin.create_token(f"{role.value}-{self.clock.utc_ms()}", role, self.clock.utc_ms())

    async def append(self, *bodies: EntryBody) -> int:
        """Journal entries in one transaction; returns the last position."""
        return await self.journal.transact(
            lambda recording: [recording.append(body) for body in bodies][-1].position
        )

    async def say(self, *bodies: Body) -> int:
        """The scripted agent says this, now."""
        at = iso_utc(self.clock.utc_ms())
        return await self.append(*(self.stream.event(body, at) for body in bodies))

    async def change(self, machine: str, guard: str, state: GuardState) -> int:
        """A guard changes."""
        return await self.say(_changed(machine, guard, state))

    async def raise_violation(
        self, machine: str, guard: str | None, rule: str, priority: Priority, basis: Basis = Basis.PROVEN
    ) -> str:
        """A rule finds something; the occurrence."""
        occurrence = f"occ-{self.stream.seq + 1}"
        since = iso_utc(self.clock.utc_ms())
        await self.say(
            ViolationRaised(
                machine, guard, None, rule, priority, basis, occurrence, since, None, {"grade": "B"}
            )
        )
        return occurrence

    async def clear_violation(self, occurrence: str, machine: str, guard: str | None, rule: str) -> int:
        """It is over."""
        now = iso_utc(self.clock.utc_ms())
        return await self.say(
            ViolationCleared(occurrence, rule, machine, guard, None, Priority.P1, now, "over", 5, 5, 5)
        )

    async def presence(self, online: bool, agent: str = AGENT) -> int:
        """The gateway hears the agent, or does not any more."""
        self.beats[SITE, agent] = Beat(0, {"plc1": 120})
        return await self.append(PresenceChanged(SITE, agent, online, self.stream.epoch, "test"))


def _labels(zh: str, en: str) -> Mapping[str, str]:
    return {"zh": zh, "en": en}


def _guard(zh: str, en: str, kind: str) -> GuardModel:
    return GuardModel(_labels(zh, en), kind, 2000, ("plc1",), {}, {"guard_open_motion": 1450})


_MACHINES: Mapping[str, tuple[str, str, str, str, Mapping[str, GuardModel]]] = {
    "mixer-18": (
        "18号混砂机",
        "Mixer 18",
        "sand",
        "mixer",
        {
            "door-1": _guard("人孔门", "Manhole door", "interlocked_door"),
            "door-2": _guard("取样门", "Sampling door", "interlocked_door"),
            "estop": _guard("急停", "Emergency stop", "estop"),
        },
    ),
    "crusher-02": (
        "2号破碎机",
        "Crusher 2",
        "sand",
        "crusher",
        {
            "door-1": _guard("检修门", "Service door", "locked_door"),
            "door-2": _guard("门2", "Door 2", "locked_door"),
        },
    ),
    "belt-11": (
        "11号皮带机",
        "Belt 11",
        "sand",
        "conveyor",
        {
            "cover": _guard("防护罩", "Cover", "interlocked_door"),
            "pullcord-1": _guard("拉绳A", "Pull-cord A", "pull_cord"),
            "pullcord-2": _guard("拉绳B", "Pull-cord B", "pull_cord"),
        },
    ),
    "palletiser-03": (
        "3号码垛机",
        "Palletiser 3",
        "packing",
        "palletiser",
        {
            "curtain": _guard("光幕", "Light curtain", "light_curtain"),
            "door-1": _guard("检修门", "Service door", "interlocked_door"),
            "mat": _guard("安全地毯", "Safety mat", "safety_mat"),
            "key": _guard("钥匙联锁", "Trapped key", "trapped_key"),
        },
    ),
    "screen-04": (
        "4号振动筛",
        "Vibrating screen 4",
        "packing",
        "screen",
        {
            "door-1": _guard("门1", "Door 1", "interlocked_door"),
            "estop": _guard("急停", "Emergency stop", "estop"),
        },
    ),
}


def births(agent: str = AGENT) -> list[EntryBody]:
    """Birth certificates of the demonstration plant."""
    names = tuple(_MACHINES)
    areas = {"sand": _labels("砂处理", "Sand preparation"), "packing": _labels("包装", "Packing")}
    model = AgentModel(
        agent,
        "e",
        "0.1.0",
        _labels("昌邑工厂一号网关", "Changyi gateway 1"),
        _labels("昌邑工厂", "Changyi"),
        areas,
        names,
        ("plc1",),
        "c0ffee",
        "key",
    )
    found: list[EntryBody] = [AgentModelled(SITE, agent, _json(model))]
    for order, (name, (zh, en, area, kind, guards)) in enumerate(_MACHINES.items()):
        machine = MachineModel(name, _labels(zh, en), area, kind, order, guards, {}, {}, {}, "e")
        found.append(MachineModelled(SITE, agent, name, _json(machine)))
    return found


def _json(model: object) -> Mapping[str, Json]:
    document = plain(model)
    assert isinstance(document, dict)
    return document


def quiet_plant() -> list[Body]:
    """Everything closed and running."""
    told: list[Body] = [AgentStarted(None, "0.1.0", "c0ffee", True)]
    for machine, (_, _, _, _, guards) in _MACHINES.items():
        told.append(MachineChanged(machine, True, "auto", None))
        for guard, model in guards.items():
            state = GuardState.CLOSED_LOCKED if model.kind == "locked_door" else GuardState.CLOSED
            told.append(_changed(machine, guard, state))
    return told


async def tell_quiet_plant(rig: BoardRig) -> None:
    """The demonstration plant, everything closed and running."""
    await rig.append(*births())
    await rig.presence(True)
    await rig.say(*quiet_plant())


async def tell_busy_plant(rig: BoardRig) -> None:
    """The demonstration plant with one of everything that can be wrong."""
    await tell_quiet_plant(rig)
    await rig.raise_violation("mixer-18", "door-1", "guard_open_motion", Priority.P1)
    await rig.raise_violation("palletiser-03", "curtain", "bypass_active", Priority.P2)
    await rig.raise_violation("palletiser-03", "door-1", "channel_discrepancy", Priority.P2)
    await rig.say(
        _changed("mixer-18", "door-1", GuardState.OPEN),
        MachineChanged("crusher-02", False, "maint", True),
        _changed("crusher-02", "door-1", GuardState.OPEN),
        _changed("palletiser-03", "curtain", GuardState.BYPASSED),
        _changed("palletiser-03", "door-1", GuardState.FAULT),
        MachineChanged("screen-04", None, None, True),
        _changed("screen-04", "door-1", GuardState.UNKNOWN),
        _changed("screen-04", "estop", GuardState.UNKNOWN),
    )


def _changed(machine: str, guard: str, state: GuardState) -> GuardChanged:
    return GuardChanged(machine, guard, state, None, False, None, Quality.GOOD)


@contextlib.asynccontextmanager
async def board_rig(folder: Path, anonymous: Role | None = None, port: int = 0) -> AsyncIterator[BoardRig]:
    """A running gateway of this kind; its server ends with the context."""
    clock, plant = SystemClock(), Plant()
    folds: dict[str, Fold] = {"plant": plant, "findings": OpenFindings(), "book": AlarmBook()}
    journal = await SqlJournal.open(f"sqlite:///{folder}/gateway.db", clock, folds)
    rig = BoardRig(folder, journal, clock, plant)
    listener = bind("127.0.0.1", port)
    rig.port = listener.getsockname()[1]
    context = rig.context(anonymous)
    server = ApiServer(with_limits(build_application(context), context), rig.live)
    tasks = [asyncio.create_task(rig.live.run()), asyncio.create_task(server.serve(sockets=[listener]))]
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn says it by an attribute alone
            await asyncio.sleep(0.01)
        yield rig
    finally:
        server.stop()
        await tasks[1]
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await journal.close()
        rig.engine.dispose()


async def _serve(folder: Path, port: int) -> None:
    async with board_rig(folder, Role.VIEWER, port) as rig:
        await tell_busy_plant(rig)
        print(rig.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
