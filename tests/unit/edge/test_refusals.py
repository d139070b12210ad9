"""A device that lacks an address: the agent finds out what it has, loses nothing else, and does not ask twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_file import IN_MEMORY
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.delivery import DeliveryMode, ReportPolicy, Sender
from edge_agent.domain.findings import GuardView
from edge_agent.domain.plan import CellPlan, ReadBlock, Table
from edge_agent.engine import EdgeEngine
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome, Committed
from edge_agent.runtime.naps import Naps
from edge_agent.runtime.polling import poll_line
from edge_agent.runtime.pump import Pump
from edge_agent.runtime.refusals import REFUSALS_KEY, RefusalBook, told_split
from edge_agent.runtime.schedule import line_schedules
from edge_agent.wire.event import GuardState, Json
from tests.simulation.clocks import NodeClock
from tests.simulation.virtual_loop import run_virtual, virtual_loop
from tests.unit.edge.rig import DOOR, ESTOP, Layout, cell
from tests.unit.edge.test_runtime_pump import DirectOutbox

PLAN = cell(Layout(permit=True))
BITS = PLAN.blocks[0]


@dataclass
class Device:
    """A controller that has only some bits, all of them 1, and all registers; `reason` is how it refuses."""

    bits: range
    reason: str = "exception:2"
    asked: list[tuple[Table, int, int]] = field(default_factory=list)
    requests: Mapping[int, int] = field(default_factory=dict)

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        await asyncio.sleep(0.003)
        self.asked.append((block.table, block.start, block.count))
        wanted = range(block.start, block.start + block.count)
        if block.table is BITS.table and not (wanted[0] in self.bits and wanted[-1] in self.bits):
            return BlockFailed(self.reason)
        if block.table.is_bits:
            return BlockOk(((1 << block.count) - 1).to_bytes(block.length_bytes, "little"))
        return BlockOk(bytes(block.length_bytes))

    async def close(self) -> None:
        """Nothing to give back."""

    @property
    def asked_bits(self) -> list[tuple[int, int]]:
        return [(start, count) for table, start, count in self.asked if table is BITS.table]


@dataclass
class AgentRun:
    """One run of the loops around the engine; what it remembers goes into the next."""

    device: Device
    memory: dict[str, Json] = field(default_factory=dict)
    plan: CellPlan = PLAN
    told: list[Mapping[str, Json]] = field(default_factory=list)
    guards: dict[str, GuardState] = field(default_factory=dict)

    def run(self, seconds: float, then: range | None = None) -> None:
        """Run for so long; and as long again, if the device has other bits `then`."""
        run_virtual(lambda: self._run(seconds, then))

    async def _run(self, seconds: float, then: range | None) -> None:
        clock = NodeClock(virtual_loop(), "gw", 0)
        book = RefusalBook(self.plan, self.memory)
        pair = clock.pair()
        engine = EdgeEngine(
            book.plan, epoch="01RUN0000A", boot="b", now=pair.mono, wall=pair, memory=self.memory
        )

        def note_split(block: ReadBlock, parts: Sequence[ReadBlock]) -> None:
            self.memory |= book.add(block)
            self.told.append(told_split(block, parts))

        def note_views(views: list[GuardView]) -> None:
            self.guards |= {view.guard: view.state for view in views}

        store = EventStore(
            IN_MEMORY, Run("site", "gw", "b", "1", "c" * 64), size_max_mb=16, sign=SigningKey.generate().sign
        )
        store.begin_epoch(pair)

        def note_commit(_committed: Committed) -> None:
            """Sent by nobody."""

        pump = Pump(
            engine,
            DirectOutbox(store, []),
            clock,
            pair,
            on_commit=note_commit,
            on_views=note_views,
            on_split=note_split,
        )
        sender = Sender(DeliveryMode.GATEWAY, store.epoch, tail=1)
        loops = [
            asyncio.create_task(poll_line(schedule, self.device, clock, pump, lambda: None, naps=Naps()))
            for schedule in line_schedules(book.plan, pair.mono).values()
        ]
        loops.append(asyncio.create_task(pump.run(sender, ReportPolicy(3600), lambda: None)))
        await asyncio.sleep(seconds)
        if then is not None:
            self.device.bits = then
            await asyncio.sleep(seconds)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


def test_what_the_device_has_is_known_within_the_same_poll() -> None:
    run = AgentRun(Device(range(5)))  # the door's four bits and the E-stop; no permit
    run.run(0.4)
    asked = run.device.asked_bits
    assert asked[:9] == [(0, 6), (0, 4), (0, 6), (0, 4), (4, 2), (4, 1), (4, 2), (4, 1), (5, 1)]
    assert set(asked[9:]) == {(4, 1), (5, 1), (0, 4)}
    assert run.guards[DOOR] is not GuardState.UNKNOWN
    assert run.guards[ESTOP] is GuardState.CLOSED


def test_each_split_is_told_once_and_the_next_run_asks_in_parts_at_once() -> None:
    first = AgentRun(Device(range(5)))
    first.run(10)
    assert [(told["start"], told["count"], told["parts"]) for told in first.told] == [
        (0, 6, [{"start": 0, "count": 4}, {"start": 4, "count": 2}]),
        (4, 2, [{"start": 4, "count": 1}, {"start": 5, "count": 1}]),
    ]
    second = AgentRun(Device(range(5)), first.memory)
    second.run(10)
    assert second.told == []
    assert set(second.device.asked_bits) == {(0, 4), (4, 1), (5, 1)}
    assert second.guards[ESTOP] is GuardState.CLOSED


def test_another_configuration_asks_for_the_whole_again() -> None:
    first = AgentRun(Device(range(5)))
    first.run(1)
    changed = AgentRun(Device(range(6)), first.memory, replace(PLAN, config_hash="f" * 64))
    changed.run(1)
    assert set(changed.device.asked_bits) == {(0, 6)}


def test_a_busy_device_is_asked_for_the_whole_until_it_answers() -> None:
    for reason in ("exception:6", "exception:3", "exception:4", "timeout", "short"):
        run = AgentRun(Device(range(5), reason=reason))
        run.run(3)
        assert set(run.device.asked_bits) == {(0, 6)}
        assert (run.told, REFUSALS_KEY in run.memory) == ([], False)


def test_a_device_that_refuses_everything_while_it_starts_is_asked_for_the_whole_ever_after() -> None:
    device = Device(range(0))
    run = AgentRun(device)
    run.run(10, then=range(6))
    assert (run.told, REFUSALS_KEY in run.memory) == ([], False)
    assert set(device.asked_bits[-12:]) == {(0, 6)}
    assert run.guards[ESTOP] is GuardState.CLOSED


def test_a_device_that_has_none_of_it_is_asked_for_one_piece_more_a_poll() -> None:
    run = AgentRun(Device(range(0)))
    run.run(10)
    late = run.device.asked_bits[-8:]
    assert late.count((0, 6)) == 4
    assert set(late) == {(0, 6), (0, 4), (4, 1), (5, 1)}
    assert run.guards.get(DOOR, GuardState.UNKNOWN) is GuardState.UNKNOWN


def test_unreadable_memory_of_refusals_is_no_memory() -> None:
    damaged: dict[str, Json] = {"config_hash": PLAN.config_hash, "spans": [1]}
    memories: list[dict[str, Json]] = [{}, {REFUSALS_KEY: "nonsense"}, {REFUSALS_KEY: damaged}]
    for memory in memories:
        assert RefusalBook(PLAN, memory).plan == PLAN
