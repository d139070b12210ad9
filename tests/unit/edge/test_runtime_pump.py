"""The pump on a real store in memory: nothing is shown before it is stored, nothing is lost while the disk is full."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_file import IN_MEMORY
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.delivery import DeliveryMode, Match, Placed, ReportPolicy, Sender
from edge_agent.domain.findings import Draft, GuardView
from edge_agent.domain.plan import ReadBlock
from edge_agent.domain.units import NS_PER_MS, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.ports import (
    BlockFailed,
    BlockOk,
    BlockOutcome,
    Committed,
    Loss,
    Pruned,
    Reading,
    StoreFull,
    StoreStatus,
)
from edge_agent.runtime import pump as pump_module
from edge_agent.runtime.polling import Reply
from edge_agent.runtime.pump import Pump
from edge_agent.wire.event import (
    GuardChanged,
    GuardState,
    Json,
    Observation,
    OutboxOverflow,
    Position,
    Quality,
    StateReport,
)
from edge_agent.wire.status import Ack
from tests.simulation.virtual_loop import run_virtual, virtual_loop
from tests.unit.edge.rig import DOOR, Layout, Plant, cell


@dataclass
class HandClock:
    """A clock that stands still until moved."""

    now_ms: float = 0
    boot: str = "boot-1"

    def mono(self) -> MonoNs:
        return MonoNs(round(self.now_ms * NS_PER_MS))

    def pair(self) -> WallPair:
        return WallPair(self.mono(), UtcNs(1_790_000_000_000_000_000 + self.mono()), synced=True)

    def offset_ms(self) -> int | None:
        return None


class DirectOutbox:
    """The store without its thread; `is_full` plays a full disk, `hold` one that is slow to commit, `hold_marks` to mark."""

    def __init__(self, store: EventStore, said: list[str]) -> None:
        self._store = store
        self._said = said
        self.is_full = False
        self.hold: asyncio.Event | None = None
        self.hold_marks: asyncio.Event | None = None
        self.waiting: list[Loss] = []

    async def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        if self.hold is not None:
            await self.hold.wait()
        if self.is_full:
            return StoreFull()
        self._said.append("commit")
        return self._store.commit(drafts, memory, pair, loss)

    async def begin_epoch(self, pair: WallPair) -> Committed | StoreFull:
        return self._store.begin_epoch(pair)

    async def place(self, position: Position) -> Placed:
        return self._store.place(position)

    async def read(self, places: Sequence[int]) -> Reading:
        return self._store.read(places)

    async def note_waiting(self, waiting: Loss, pair: WallPair) -> None:
        self.waiting.append(waiting)

    async def set_acked(self, acked: int, ever_acked: int) -> Position | None:
        if self.hold_marks is not None:
            await self.hold_marks.wait()
        return self._store.set_acked(acked, ever_acked)

    async def status(self) -> StoreStatus:
        return self._store.status()

    async def prune(self, acked: int, pair: WallPair) -> Pruned:
        return self._store.prune(acked, pair)

    async def stop_clean(self, pair: WallPair) -> Committed | StoreFull:
        return self._store.stop_clean(pair)


@dataclass
class Bench:
    """An engine, a store and the pump between them."""

    clock: HandClock = field(default_factory=HandClock)
    plant: Plant = field(default_factory=Plant)
    said: list[str] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    views: list[GuardView] = field(default_factory=list)
    split: list[tuple[ReadBlock, Sequence[ReadBlock]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        key = SigningKey.generate()
        run = Run("site", "gw", "boot-1", "1", "c" * 64)
        self.store = EventStore(IN_MEMORY, run, size_max_mb=16, sign=key.sign)
        pair = self.clock.pair()
        self.store.begin_epoch(pair)
        self.cell = cell(Layout())
        engine = EdgeEngine(
            self.cell, epoch=self.store.epoch, boot="boot-1", now=pair.mono, wall=pair, memory={}
        )
        self.outbox = DirectOutbox(self.store, self.said)
        self.sender = Sender(DeliveryMode.GATEWAY, self.store.epoch, tail=1)
        self.reports = ReportPolicy(3600)
        self.pump = Pump(
            engine,
            self.outbox,
            self.clock,
            pair,
            on_commit=self.note_commit,
            on_views=self.note_views,
            on_split=lambda block, parts: self.split.append((block, parts)),
        )

    def note_commit(self, committed: Committed) -> None:
        self.committed.append(committed)
        self.sender.extend(committed.tail)

    def note_views(self, views: list[GuardView]) -> None:
        self.said.append("show")
        self.views += views

    async def step(self) -> None:
        await self.pump.step(self.sender, self.reports)

    async def poll(self, *, ok: bool = True) -> None:
        for block in self.cell.blocks:
            outcome = BlockOk(self.plant.block(block)) if ok else BlockFailed("timeout")
            now = self.clock.mono()
            await self.pump.accept(Reply(block.id, outcome, now, now))
        await self.step()
        self.clock.now_ms += 200

    def bodies(self) -> list[object]:
        return [event.body for committed in self.committed for event in committed.events]


async def test_states_are_shown_after_the_commit_of_their_events() -> None:
    bench = Bench()
    await bench.poll()
    assert bench.said == ["commit", "show"]
    bench.plant.closed = 0
    await bench.poll()
    assert bench.said == ["commit", "show"] * 2
    changed = [body for body in bench.bodies() if isinstance(body, GuardChanged) and body.guard == DOOR]
    assert [body.state for body in changed] == [GuardState.CLOSED, GuardState.OPEN]
    assert bench.views[-1].state is GuardState.OPEN


async def test_what_gathers_during_a_commit_needs_one_commit_together() -> None:
    bench = Bench()
    for closed in (1, 0, 1, 0):
        bench.plant.closed = closed
        for block in bench.cell.blocks:
            now = bench.clock.mono()
            reply = Reply(block.id, BlockOk(bench.plant.block(block)), now, now)
            await bench.pump.accept(reply)
    await bench.step()
    assert bench.said.count("commit") == 1
    assert (
        len([body for body in bench.bodies() if isinstance(body, GuardChanged) and body.guard == DOOR]) == 4
    )


async def test_a_poll_without_a_change_costs_no_commit() -> None:
    bench = Bench()
    await bench.poll()
    bench.said.clear()
    for _ in range(5):
        await bench.poll()
    assert bench.said == []


async def test_what_found_the_outbox_full_is_told_as_soon_as_there_is_room_and_a_report_follows() -> None:
    """Seed 1129948: a plant in which nothing moved said nothing of what was lost for up to a minute, and its beats vouched
    meanwhile for states from before the loss."""
    bench = Bench()
    await bench.poll()
    limit_bytes, bench.store._limit_bytes = bench.store._limit_bytes, 1
    bench.pump.outbox_pct = 100
    assert not bench.pump.is_mute
    for _ in range(30):
        await bench.poll(ok=False)
    assert not any(isinstance(body, OutboxOverflow) for body in bench.bodies())
    assert bench.pump.is_mute
    bench.store._limit_bytes = limit_bytes
    bench.pump.outbox_pct = 96
    await bench.poll(ok=False)
    assert isinstance(bench.bodies()[-1], OutboxOverflow)
    assert bench.pump.is_mute, "told, and not made good"
    bench.pump.outbox_pct = 0
    await bench.poll(ok=False)
    assert isinstance(bench.bodies()[-1], StateReport)
    assert not bench.pump.is_mute
    await bench.poll(ok=False)
    assert isinstance(bench.bodies()[-1], StateReport), "one is enough"


async def test_nothing_is_shown_while_the_disk_is_full_and_all_of_it_afterwards() -> None:
    bench = Bench()
    await bench.poll()
    bench.outbox.is_full = True
    bench.said.clear()
    for closed in (0, 1, 0):
        bench.plant.closed = closed
        await bench.poll()
    assert (bench.said, bench.pump.is_full) == ([], True)
    bench.outbox.is_full = False
    await bench.step()
    assert (bench.said, bench.pump.is_full) == (["commit", "show"], False)
    states = [body.state for body in bench.bodies() if isinstance(body, GuardChanged) and body.guard == DOOR]
    assert states == [GuardState.CLOSED, GuardState.OPEN, GuardState.CLOSED, GuardState.OPEN]


async def test_beyond_the_limit_findings_are_counted_and_the_count_is_stored() -> None:
    bench = Bench()
    bench.outbox.is_full = True
    for n in range(pump_module.UNSTORED_MAX + 7):
        bench.pump.observe("flood", {"n": n})
    await bench.step()
    bench.outbox.is_full = False
    await bench.step()
    (overflow,) = [body for body in bench.bodies() if isinstance(body, OutboxOverflow)]
    floods = [body for body in bench.bodies() if isinstance(body, Observation)]
    assert (overflow.dropped, len(floods)) == (7, pump_module.UNSTORED_MAX)


async def test_however_much_comes_at_once_nothing_is_lost_while_the_disk_has_room() -> None:
    bench = Bench()
    for n in range(pump_module.UNSTORED_MAX + 7):
        bench.pump.observe("flood", {"n": n})
    await bench.step()
    floods = [body for body in bench.bodies() if isinstance(body, Observation)]
    assert len(floods) == pump_module.UNSTORED_MAX + 7
    assert not [body for body in bench.bodies() if isinstance(body, OutboxOverflow)]


async def test_a_state_report_is_one_commit_when_settled() -> None:
    bench = Bench()
    bench.reports.connect()
    await bench.step()
    assert not [body for body in bench.bodies() if isinstance(body, StateReport)]
    await bench.poll()
    parts = [body for body in bench.bodies() if isinstance(body, StateReport)]
    assert [(part.part, part.parts) for part in parts] == [(1, 1)]
    await bench.poll()
    assert len([body for body in bench.bodies() if isinstance(body, StateReport)]) == 1


async def test_what_the_first_report_called_unknown_is_reported_as_soon_as_it_is_seen() -> None:
    """Older occurrences heal by reports alone, and one of unknowns heals none: the next was an hour away."""
    bench = Bench()
    bench.reports.connect()
    for _ in range(15):
        await bench.poll(ok=False)
    (first,) = [body for body in bench.bodies() if isinstance(body, StateReport)]
    bench.reports._last_part = 0  # acked
    for _ in range(150):
        await bench.poll()
    _, second = [body for body in bench.bodies() if isinstance(body, StateReport)]
    assert first.guards != second.guards


async def test_failures_reach_the_engine_too() -> None:
    bench = Bench()
    await bench.poll()
    for _ in range(15):
        await bench.poll(ok=False)
    assert {view.state for view in bench.views[-2:]} == {GuardState.UNKNOWN}


async def test_the_runtimes_memory_goes_with_the_next_commit() -> None:
    bench = Bench()
    bench.pump.remember({"topic/x": True})
    await bench.step()
    assert bench.store.memory["topic/x"] is True


async def test_answers_to_the_whole_block_are_judged_before_it_is_split() -> None:
    bench = Bench()
    await bench.poll()
    whole = bench.cell.blocks[0]
    bench.plant.closed = 0
    now = bench.clock.mono()
    await bench.pump.accept(Reply(whole.id, BlockOk(bench.plant.block(whole)), now, now))
    parts = bench.pump.split(whole)
    assert bench.split == [(whole, parts)]
    await bench.step()
    assert bench.views[-1].state is GuardState.OPEN
    assert {view.quality for view in bench.pump.engine.guard_views()} == {Quality.GOOD}


async def test_a_block_that_cannot_be_split_gives_nothing_to_ask_for_instead() -> None:
    bench = Bench()
    door, _ = bench.pump.split(bench.cell.blocks[0])
    channels, _ = bench.pump.split(door)
    assert bench.pump.split(channels) == ()
    assert len(bench.split) == 2


async def test_repetitions_are_thinned_out_while_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "THIN_FROM", 3)
    bench = Bench()
    await bench.poll()
    block, said = bench.cell.blocks[0], BlockOk(bench.plant.block(bench.cell.blocks[0]))

    async def hear(at_ms: int, outcome: BlockOutcome = said) -> None:
        at = MonoNs(at_ms * NS_PER_MS)
        await bench.pump.accept(Reply(block.id, outcome, at, at))

    for at_ms in range(200, 10_200, 100):
        await hear(at_ms)
    assert 10 <= len(bench.pump._inbox) < 15, "two in each two seconds after which it is stale"
    waiting = len(bench.pump._inbox)
    await hear(10_200, BlockFailed("timeout"))
    assert len(bench.pump._inbox) == waiting + 1, "a failure is no repetition"
    bench.clock.now_ms = 10_200
    for other in bench.cell.blocks[1:]:
        await bench.pump.accept(Reply(other.id, BlockFailed("timeout"), MonoNs(0), bench.clock.mono()))
    await bench.step()
    assert Quality.GOOD in {view.quality for view in bench.pump.engine.guard_views()}, "and nothing is stale"


async def test_what_is_shown_is_vouched_for_only_while_judging_keeps_up_with_reading() -> None:
    """A guard's opening may be among what waits: a beat would say that it is still closed."""
    bench = Bench()
    await bench.poll()
    asked = bench.clock.mono()
    await bench.pump.accept(Reply(bench.cell.blocks[0].id, BlockFailed("timeout"), asked, asked))
    assert not bench.pump.is_behind(MonoNs(asked + 2_000 * NS_PER_MS))
    assert bench.pump.is_behind(MonoNs(asked + 2_001 * NS_PER_MS))
    await bench.step()
    assert not bench.pump.is_behind(MonoNs(asked + 60_000 * NS_PER_MS)), "nothing waits"


async def test_what_is_shown_is_not_vouched_for_while_what_was_found_waits_for_the_disk() -> None:
    bench = Bench()
    await bench.poll()
    bench.plant.closed = 0
    block = bench.cell.blocks[0]
    asked = bench.clock.mono()
    assert bench.pump.take(block.id, bench.plant.block(block), asked, asked)
    assert not bench.pump.is_behind(MonoNs(asked + 2_000 * NS_PER_MS))
    assert bench.pump.is_behind(MonoNs(asked + 2_001 * NS_PER_MS)), "the pump has had no turn"
    bench.outbox.hold = asyncio.Event()
    stepping = asyncio.create_task(bench.step())
    await asyncio.sleep(0)
    assert bench.pump.is_behind(MonoNs(asked + 2_001 * NS_PER_MS)), "the disk takes its time"
    bench.outbox.hold.set()
    await stepping
    assert not bench.pump.is_behind(MonoNs(asked + 60_000 * NS_PER_MS)), "it is stored and shown"


@dataclass
class LoopClock(HandClock):
    """The virtual loop's time."""

    def mono(self) -> MonoNs:
        return MonoNs(virtual_loop().now_ns)


async def after_a_stall(*, asked_ms: int, until_ms: int = 2_050) -> Bench:
    """The process stands still from 0.1 s to `until_ms`; what was asked for at `asked_ms` is in the kernel then."""
    bench, loop = Bench(clock=LoopClock()), virtual_loop()
    running = asyncio.create_task(bench.pump.run(bench.sender, bench.reports, lambda: None))
    await bench.poll()
    await asyncio.sleep(0.1)
    loop.now_ns = until_ms * NS_PER_MS
    await asyncio.sleep(0.0005)
    for block in bench.cell.blocks:
        outcome = BlockOk(bench.plant.block(block))
        await bench.pump.accept(Reply(block.id, outcome, MonoNs(asked_ms * NS_PER_MS), bench.clock.mono()))
    await asyncio.sleep(0.01)
    running.cancel()
    return bench


def test_an_answer_that_waited_through_a_stall_is_not_lost() -> None:
    bench = run_virtual(lambda: after_a_stall(asked_ms=90))
    assert {view.quality for view in bench.views} == {Quality.GOOD}


def test_an_answer_that_a_stall_made_too_old_is_lost() -> None:
    bench = run_virtual(lambda: after_a_stall(asked_ms=40))
    assert Quality.STALE in {view.quality for view in bench.views}


def test_an_answer_asked_for_after_a_long_stall_hides_nothing_of_it() -> None:
    """For 20 s nobody looked: a prompt first answer afterwards must not make that time one with what was known before."""
    bench = run_virtual(lambda: after_a_stall(asked_ms=20_000, until_ms=20_000))
    told = [event.kind for committed in bench.committed for event in committed.events]
    assert "device_lost" in told


async def test_what_a_split_finds_during_a_commit_that_fails_is_shown_too() -> None:
    """Else the guard's retained state is published again as closed for ever: nothing changes any more that would show it."""
    bench = Bench()
    await bench.poll()
    bench.outbox.hold = asyncio.Event()
    bench.pump.observe("anything", {})
    stepping = asyncio.create_task(bench.step())
    await asyncio.sleep(0)
    bench.plant.closed = 0
    block, now = bench.cell.blocks[0], bench.clock.mono()
    await bench.pump.accept(Reply(block.id, BlockOk(bench.plant.block(block)), now, now))
    bench.pump.split(block)
    bench.outbox.is_full = True
    bench.outbox.hold.set()
    await stepping
    bench.outbox.is_full = False
    await bench.step()
    assert bench.views[-1].state is GuardState.OPEN


async def doors_reported_after_a_loss(bench: Bench, *, closed: int) -> list[str]:
    """The door's state in every state report of the store, the first having waited, and the door's opening been lost, for room.

    `closed`: the door when there is room again.
    """
    bench.reports.connect()
    bench.outbox.is_full = True
    await bench.poll()
    for n in range(pump_module.UNSTORED_MAX):
        bench.pump.observe("flood", {"n": n})
    bench.plant.closed = 0
    await bench.poll()
    bench.outbox.is_full = False
    bench.plant.closed = closed
    await bench.poll()
    assert [body for body in bench.bodies() if isinstance(body, OutboxOverflow)]
    assert bench.pump.is_mute
    tail = bench.store.tail
    ack = Ack(bench.store.epoch, bench.store.epoch, tail, "0" * 64, reset=False)
    bench.sender.receive_ack(ack, Placed(Match.HELD, tail), bench.clock.mono())
    await bench.step()
    assert not bench.pump.is_mute
    reports = [body for body in bench.bodies() if isinstance(body, StateReport)]
    return [report.guards["mixer"]["door"][0] for report in reports]


async def test_what_a_full_disk_swallowed_is_reported_though_a_report_waited_with_it() -> None:
    """The report that waited was made before: it says nothing of what came after it and was lost."""
    assert await doors_reported_after_a_loss(Bench(), closed=0) == ["c", "o"]


async def test_a_report_that_waited_and_came_with_a_burst_is_not_taken_for_the_one_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The burst's first commit stores it; what is left to commit is nothing."""
    monkeypatch.setattr(pump_module, "COMMIT_EVENTS_MAX", 1)
    assert await doors_reported_after_a_loss(Bench(), closed=1) == ["c", "c"]


async def test_what_waits_for_room_is_noted_before_anything_else_happens_with_it() -> None:
    """A kill on a full disk loses no more than the next run can tell."""
    bench = Bench()
    await bench.poll()
    bench.outbox.is_full = True
    bench.plant.closed = 0
    await bench.poll()
    first = bench.outbox.waiting[-1].dropped
    assert first > 0
    bench.plant.closed = 1
    await bench.poll()
    assert bench.outbox.waiting[-1].dropped > first
    assert bench.outbox.waiting[-1].since == bench.outbox.waiting[0].since
    noted = len(bench.outbox.waiting)
    await bench.poll()
    assert len(bench.outbox.waiting) == noted, "nothing new, nothing written"


async def test_a_full_disk_that_refused_no_more_than_a_checkpoint_is_tried_again_like_any_other() -> None:
    """Full means blind to the gateway: an agent with nothing to tell would stay so for a minute after there is room."""
    bench = Bench()
    await bench.poll()
    bench.outbox.is_full = True
    while not bench.pump.is_full:
        await bench.poll()
    assert bench.outbox.waiting == [], "nothing was found"
    bench.outbox.is_full = False
    await bench.poll()
    assert not bench.pump.is_full
