"""The auditor must go red: each bug that products of this kind have had is seeded, and a named check must see it.

A suite that stays green over a broken product proves nothing. Every bug here is a change of a few lines to the real
code, lived through under just the trouble that exposes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.domain import delivery, guard, held
from edge_agent.domain.delivery import DeliveryMode
from edge_agent.domain.findings import Draft
from edge_agent.domain.kleene import Tri
from edge_agent.domain.plan import CellPlan, ReadBlock, Table
from edge_agent.domain.units import MonoNs
from edge_agent.domain.wall import WallPair
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome, Committed, Loss, StoreFull
from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import GuardState, Json
from edge_agent.wire.status import Ack
from gateway.domain import occurred, stream, teller
from gateway.domain.book import AlarmBook
from gateway.domain.journal import Entry, PresenceChanged
from gateway.domain.notice import Alert
from gateway.domain.plant_fold import Plant
from gateway.domain.projection import Projection
from gateway.domain.stream import Ahead, Next
from gateway.domain.violation import Violation
from gateway.ports import Delivered, Message, Recording, Rejected, Retryable
from gateway.services import admission, operate
from gateway.services.admission import AgentKey
from gateway.services.historian import HistorianFeed
from gateway.services.ingest import Ingest
from gateway.services.operate import Done, Operate
from simulators.acts import Act, Verb
from tests.simulation.agent_node import TappedStore
from tests.simulation.clocks import START_UTC_NS, NodeClock
from tests.simulation.crew import Script
from tests.simulation.fieldbus import SimFieldbus
from tests.simulation.findings import Check
from tests.simulation.gateway_node import SimNotifier
from tests.simulation.plants import demo_plan
from tests.simulation.suite import live
from tests.simulation.swarm import Swarm, calm
from tests.simulation.virtual_loop import NS_PER_S
from tests.simulation.world import World

pytestmark = pytest.mark.thorough

Patch = Callable[[pytest.MonkeyPatch], None]


def open_long(world: World) -> Script:
    """Run the mixer, open its jumpered door for long and for a moment; then its controller falls silent."""
    cell, machine = world.cell, world.cell.machines["mixer-18"]
    door = machine.guards["door-1"]
    machine.start()
    yield 4_000
    cell.act(Act(Verb.DEFEAT, machine="mixer-18", guard="door-1"))
    door.move(closed=False)
    yield 4_000
    world.ward.clock.step_wall(world.wall_step_ns)
    yield 12_000
    door.move(closed=True)
    yield 4_000
    door.move(closed=False)
    yield 600
    door.move(closed=True)
    yield 4_000
    cell.act(Act(Verb.UNPLUG, device="plc-mixer"))
    yield 15_000
    cell.act(Act(Verb.PLUG, device="plc-mixer"))


def flutter(world: World) -> Script:
    """Doors in the wind: more events than any window has room for."""
    machines = world.cell.machines.values()
    guards = [guard for machine in machines for guard in machine.guards.values() if not guard.spec.has_lock]
    while True:
        for door in guards:
            door.move(closed=not door.closed)
        yield 260


def scripted(world: World) -> None:
    world.script = open_long


def without_heartbeats() -> CellPlan:
    """A heartbeat would tell old values by itself."""
    plan = demo_plan()
    return replace(plan, devices={name: replace(item, heartbeat=None) for name, item in plan.devices.items()})


@dataclass(frozen=True)
class Bug:
    """A seeded bug: what is patched, in which run, and the checks of which at least one must see it."""

    name: str
    caught_by: Check
    swarm: Swarm
    patch: Patch = lambda _patch: None
    customise: Callable[[World], None] = scripted
    bus: type[SimFieldbus] = SimFieldbus
    seed: int = 1
    plan: Callable[[], CellPlan] | None = None


class AckBeforeCommit(Ingest):
    """Promises first, writes afterwards (B2)."""

    async def take(self, messages: Sequence[Message]) -> None:
        for message in messages:
            event = decode(message.payload)
            if not isinstance(event, DecodeError):
                self._promise(
                    (event.site, event.agent), Ack(event.epoch, event.epoch, event.seq, event.hash, False)
                )
        await super().take(messages)


def ack_before_commit(world: World) -> None:
    scripted(world)
    world.gateway.ingest_class = AckBeforeCommit


def forget_on_puback(world: World) -> None:
    """Takes the broker's PUBACK for safe (B3)."""
    scripted(world)
    world.ward.node.mode = DeliveryMode.BROKER


class LastValueBus(SimFieldbus):
    """Answers a failed read with the last good value (B4)."""

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        outcome = await super().read(unit, block, timeout_ms)
        kept: dict[int, BlockOutcome] = self.__dict__.setdefault("kept", {})
        if isinstance(outcome, BlockOk):
            kept[block.id] = outcome
        return kept.get(block.id, outcome)


class ZeroBus(SimFieldbus):
    """Answers a failed read with zeros: every door is open."""

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        outcome = await super().read(unit, block, timeout_ms)
        return BlockOk(bytes(block.length_bytes)) if isinstance(outcome, BlockFailed) else outcome


class LossyBus(SimFieldbus):
    """Loses the first reply of every third poll."""

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        counts = self.__dict__.setdefault("counts", {})
        counts[block.id] = counts.get(block.id, 0) + 1
        is_lost = block.table is Table.DISCRETE_INPUT and counts[block.id] % 3 == 0
        self._weather.exception_share = 1.0 if is_lost else 0.0
        return await super().read(unit, block, timeout_ms)


def wall_clock_timers(patch: pytest.MonkeyPatch) -> None:
    """Measures durations on the wall clock (B5)."""

    def mono(clock: NodeClock) -> MonoNs:
        return MonoNs(clock.utc_ns() - START_UTC_NS + 10**18)

    patch.setattr(NodeClock, "mono", mono)


def reset_on_loss(patch: pytest.MonkeyPatch) -> None:
    """A lost reply begins a held condition anew (B6)."""
    step = held.Held.step

    def resetting(self: held.Held, condition: Tri, now: MonoNs, *, sampled: bool, **_begun: object) -> bool:
        if condition is None or any(signal.block.failure is not None for signal in self._inputs):
            self.reset()
        return step(self, condition, now, sampled=sampled)

    patch.setattr(held.Held, "step", resetting)


def raise_at_once(patch: pytest.MonkeyPatch) -> None:
    """Holds nothing: the first sample raises."""
    make = held.Held.__init__

    def eager(self: held.Held, need_ms: int, gap_ms: int, inputs: Any) -> None:
        make(self, 0, gap_ms, inputs)

    patch.setattr(held.Held, "__init__", eager)


def never_raise(patch: pytest.MonkeyPatch) -> None:
    """Holds for ever."""
    patch.setattr(held.Held, "step", lambda *_args, **_more: False)


def unknown_is_closed(patch: pytest.MonkeyPatch) -> None:
    """Shows what nobody knows as closed."""
    judge = guard.guard_state

    def hopeful(closed: Tri, bypass: Tri, locked: Tri, **more: bool) -> GuardState:
        return GuardState.CLOSED if closed is None else judge(closed, bypass, locked, **more)

    patch.setattr(guard, "guard_state", hopeful)


def accept_what_is_ahead(patch: pytest.MonkeyPatch) -> None:
    """Journals what comes, in whatever order it comes."""
    judge = stream.judge

    def lenient(*values: Any) -> Any:
        verdict = judge(*values)
        return Next() if isinstance(verdict, Ahead) else verdict

    patch.setattr(admission, "judge", lenient)


def no_window(patch: pytest.MonkeyPatch) -> None:
    """Sends all it has."""
    patch.setattr(delivery, "EVENTS_AHEAD_MAX", 1_000_000)


def forgetful_fold(patch: pytest.MonkeyPatch) -> None:
    """Decides by what is no entry: whether it is live."""
    stage = Plant.stage

    def live_only(self: Plant, entry: Entry, recording: object) -> None:
        if recording is not None or not isinstance(entry.body, PresenceChanged):
            stage(self, entry, recording)

    patch.setattr(Plant, "stage", live_only)


def board_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """Never takes a violation off the board."""
    patch.setattr(Plant, "_open", lambda _self, _event, _occurrence: None)


class Optimist(SimNotifier):
    """Takes any answer for a delivery."""

    async def send(self, alert: Alert) -> Delivered | Retryable | Rejected:
        await super().send(alert)
        return Delivered()


def optimistic(world: World) -> None:
    scripted(world)
    world.gateway.notifier_class = Optimist


class Twice(TappedStore):
    """Stores what it is given twice."""

    def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        return super().commit([*drafts, *drafts], memory, pair, loss)


def stores_twice(world: World) -> None:
    scripted(world)
    world.ward.node.store_class = Twice


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Takes what has not come yet for lost."""
    judge = stream.judge

    def hasty(*values: Any) -> Any:
        verdict = judge(*values)
        if isinstance(verdict, Ahead) and verdict.missing is not None:
            return Next(lost=(verdict.missing,))
        return verdict

    patch.setattr(admission, "judge", hasty)


def silent_about_disks(patch: pytest.MonkeyPatch) -> None:
    """Takes a store that begins anew for the first one."""
    patch.setattr(stream, "_tail_of_replaced_store", lambda _held: ())


def hold_back(patch: pytest.MonkeyPatch) -> None:
    """Takes everything for late news, and waits long for its end."""
    patch.setattr(occurred, "LATE_MS", -(10**12))
    patch.setattr(teller, "HOLD_MS", 15_000)


def tell_what_is_hidden(patch: pytest.MonkeyPatch) -> None:
    """Alarms what a parent hides."""
    take = AlarmBook._raise

    def loud(self: AlarmBook, violation: Violation, *more: Any) -> None:
        take(self, replace(violation, hidden_by=None), *more)

    patch.setattr(AlarmBook, "_raise", loud)


def lose_sight_of_the_doors(world: World) -> Script:
    """A mixer runs, and its doors are not seen any more, while its speed is."""
    world.cell.machines["mixer-18"].start()
    yield 4_000
    world.ward.bus.table_down = Table.DISCRETE_INPUT
    yield 40_000
    world.ward.bus.table_down = None


def blinded(world: World) -> None:
    world.script = lose_sight_of_the_doors


def promise_acts(patch: pytest.MonkeyPatch) -> None:
    """Says that an act is done without writing it down."""

    def polite(self: Operate, recording: Recording, act: object, alarm: int, *_more: object) -> Done:
        known = recording.find_alarm(alarm)
        assert known is not None
        return Done(known)

    patch.setattr(Operate, "_act", polite)


def everybody_is_first(patch: pytest.MonkeyPatch) -> None:
    """Lets everybody acknowledge, whoever was first."""
    patch.setattr(operate, "Ack", SimpleNamespace(ACKED=None))


class Quitter(HistorianFeed):
    """Tries each write once."""

    async def _write(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        if lines:
            await asyncio.to_thread(self._historian.write, lines)
        return []


def quits(world: World) -> None:
    scripted(world)
    world.gateway.feed_class = Quitter


def one_point_for_many(patch: pytest.MonkeyPatch) -> None:
    """Gives events of one second one time."""

    def coarse(_self: Projection, _agent: str, _series: str, at_us: int, _seq: int) -> int:
        return at_us // 60_000_000 * 60_000_000_000

    patch.setattr(Projection, "_unique_ns", coarse)


class Mute(Ingest):
    """Never promises anything."""

    def _promise(self, key: AgentKey, ack: Ack) -> None:
        pass


def mute(world: World) -> None:
    scripted(world)
    world.gateway.ingest_class = Mute


class Fragile(Ingest):
    """Does not survive a message that comes twice."""

    async def take(self, messages: Sequence[Message]) -> None:
        await super().take(messages)
        if self.counters.duplicates:
            raise ValueError("heard that before")


def fragile(world: World) -> None:
    scripted(world)
    world.gateway.ingest_class = Fragile


def without_ends() -> CellPlan:
    """Devices that are back stay lost."""
    plan = demo_plan()
    devices = {
        name: replace(item, rules=tuple(replace(rule, off_delay_ms=10**9) for rule in item.rules))
        for name, item in plan.devices.items()
    }
    return replace(plan, devices=devices)


def shut_out(world: World) -> None:
    """A gateway that is away while a door flutters."""
    world.script = flutter
    world.broker.unreachable.add("gateway")


def stepped(world: World) -> None:
    """The agent's wall clock is put forward by two minutes while the door is open."""
    scripted(world)
    world.wall_step_ns = 120 * NS_PER_S


BUGS = (
    Bug("acks before the commit", Check.ACK_ONLY_AFTER_COMMIT, calm(), customise=ack_before_commit),
    Bug(
        "forgets on PUBACK",
        Check.NO_COMMITTED_EVENT_LOST,
        calm(forget_share=0.3),
        customise=forget_on_puback,
    ),
    Bug(
        "keeps the last value",
        Check.NEVER_CLOSED_ON_STALE_DATA,
        calm(),
        bus=LastValueBus,
        plan=without_heartbeats,
    ),
    Bug("reads zeros", Check.NO_FALSE_VIOLATION, calm(), bus=ZeroBus),
    Bug(
        "times by the wall clock",
        Check.WALL_JUMP_CHANGES_NO_DURATION,
        calm(),
        patch=wall_clock_timers,
        customise=stepped,
    ),
    Bug(
        "starts anew at a lost reply",
        Check.EVERY_REAL_VIOLATION_RAISED_ONCE,
        calm(),
        patch=reset_on_loss,
        bus=LossyBus,
    ),
    Bug("raises at once", Check.NO_FALSE_VIOLATION, calm(), patch=raise_at_once),
    Bug("never raises", Check.EVERY_REAL_VIOLATION_RAISED_ONCE, calm(), patch=never_raise),
    Bug("shows unknown as closed", Check.UNKNOWN_WITHIN_BOUND, calm(), patch=unknown_is_closed),
    Bug("accepts what is ahead", Check.PER_EDGE_ORDER, calm(forget_share=0.3), patch=accept_what_is_ahead),
    Bug(
        "sends without a window",
        Check.QUEUES_WITHIN_LIMITS,
        calm(poll_ms=250, receive_max=1000),
        patch=no_window,
        customise=shut_out,
    ),
    Bug("folds by what is no entry", Check.REPLAY_EQUALS_LIVE, calm(), patch=forgetful_fold),
    Bug("keeps a board of its own", Check.BOARD_EQUALS_BOOK, calm(), patch=board_of_its_own),
    Bug(
        "takes any answer for a delivery",
        Check.ROUTED_ALARM_NOTIFIED,
        calm(receiver_error_share=0.9),
        customise=optimistic,
    ),
    Bug("stores twice", Check.JOURNAL_HAS_NO_DUPLICATE, calm(), customise=stores_twice),
    Bug("takes late for lost", Check.GAP_MEANS_LOSS, calm(forget_share=0.3), patch=impatient),
    Bug("takes late for lost", Check.NO_COMMITTED_EVENT_LOST, calm(forget_share=0.3), patch=impatient),
    Bug(
        "says nothing of a lost disk",
        Check.GAP_MEANS_LOSS,
        calm(length_s=90, agent_crash_every_s=12, store_loss_share=0.6, partition_every_s=9),
        patch=silent_about_disks,
    ),
    Bug("holds news back", Check.ROUTED_ALARM_NOTIFIED_IN_TIME, calm(), patch=hold_back),
    Bug(
        "tells what is hidden",
        Check.SUPPRESSED_NEVER_NOTIFIED,
        calm(length_s=60),
        patch=tell_what_is_hidden,
        customise=blinded,
    ),
    Bug("promises acts", Check.ACTS_STAND, calm(operator_every_s=2), patch=promise_acts),
    Bug(
        "lets everybody be first",
        Check.ACTS_STAND,
        calm(operator_every_s=2, race_share=1.0),
        patch=everybody_is_first,
    ),
    Bug(
        "tries the historian once",
        Check.HISTORIAN_HAS_IT_ALL,
        calm(historian_down_every_s=8),
        customise=quits,
    ),
    Bug("has one point for many", Check.HISTORIAN_HAS_IT_ALL, calm(), patch=one_point_for_many),
    Bug("never promises", Check.ALL_COMES_TOGETHER, calm(), customise=mute),
    Bug(
        "dies of a duplicate",
        Check.NOBODY_DIES_BY_HIMSELF,
        calm(duplicate_share=0.5),
        customise=fragile,
    ),
    Bug("ends nothing", Check.NO_OCCURRENCE_LEFT_OPEN, calm(), plan=without_ends),
)


def live_through(bug: Bug) -> set[Check]:
    world = live(
        bug.swarm,
        None,
        bug.plan and bug.plan(),
        seed=bug.seed,
        customise=bug.customise,
        bus=bug.bus,
        heal_s=10,
    )
    return {finding.check for finding in world.auditor.findings}


def test_every_promise_has_a_bug_that_breaks_it() -> None:
    assert {bug.caught_by for bug in BUGS} == set(Check)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.name}: {bug.caught_by}")
def test_the_auditor_sees_it(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.patch(monkeypatch)
    assert bug.caught_by in live_through(bug)


@pytest.mark.parametrize("bus", [SimFieldbus, LossyBus])
def test_without_a_bug_the_same_story_is_green(bus: type[SimFieldbus]) -> None:
    world = live(calm(forget_share=0.1), customise=stepped, bus=bus)
    assert [str(finding) for finding in world.auditor.findings] == []
