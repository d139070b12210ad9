"""The agent as a whole: starts the loops, beats, stops them.

    run:   begin an epoch ─▶ engine takes up its memory ─▶ all loops, until `stop`
    stop:  no more polls ─▶ what is in the inbox is judged and committed ─▶ last checkpoint ─▶ sent, as far as
           `DRAIN_S` allows ─▶ health says offline ─▶ DISCONNECT

A drain that is cut short loses nothing: what is committed is sent by the next run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.domain.delivery import DeliveryMode, ReportPolicy, Sender, Span
from edge_agent.domain.findings import GuardView
from edge_agent.domain.plan import CellPlan, ReadBlock, Table
from edge_agent.domain.units import NS_PER_MS, DeviceId
from edge_agent.domain.wall import WallPair
from edge_agent.engine import EdgeEngine
from edge_agent.ports import (
    Clock,
    Committed,
    Fieldbus,
    Outbox,
    Publication,
    StoreBrokenError,
    StoreFull,
    Uplink,
)
from edge_agent.runtime.courier import Courier
from edge_agent.runtime.desk import Desk, stale_topics
from edge_agent.runtime.naps import Naps
from edge_agent.runtime.polling import poll_line
from edge_agent.runtime.pruning import prune_for_ever
from edge_agent.runtime.pump import Pump
from edge_agent.runtime.refusals import RefusalBook, told_split
from edge_agent.runtime.schedule import PollCounters, PollSchedule, line_schedules
from edge_agent.runtime.watch import Pulse, feed_watchdog, watch_clock
from edge_agent.wire.event import Json, Position
from edge_agent.wire.status import HEALTH_PERIOD_MS, Ack, DeviceHealth, Health, encode_status
from edge_agent.wire.topics import Channel

DRAIN_S: Final = 3.0
"""What a stop may take to send what is left; a service must be gone within 5 s (the outside contract, section 1)."""

DEVICES_AT_ONCE: Final = 50
"""Devices that are looked at for a health in one turn of the event loop: half a millisecond."""

_DRAIN_LOOK_S: Final = 0.02

_HASH_CHARS: Final = 64
"""A SHA-256 in hex."""

_OWN_LOOPS: Final = ("pump", "courier", "beat", "clock", "pruning")

FUNCTION_CODES: Final = tuple(table.function_code for table in Table)
"""1 to 4: there is nothing else to count."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store held when it was opened: where the chain stood, and what is remembered.

    `recall` reads it when it is needed, at the start of a run: of a large plant it is tens of megabytes.
    """

    first: int
    tail: int
    acked: int
    gone: tuple[Span, ...]
    recall: Callable[[], Mapping[str, Json]]


@dataclass(frozen=True, slots=True)
class World:
    """The adapters of one agent. `links` by the names that `schedule.lines` gives them; the last three are the process's own.

    `lasting` is called when what stands will live as long as the run: before the first poll, and once every guard's first
    state is known.
    """

    clock: Clock
    outbox: Outbox
    uplink: Uplink
    links: Mapping[str, Fieldbus]
    rss_mb: Callable[[], int | None]
    notify: Callable[[str], None]
    lasting: Callable[[], None] = lambda: None


class Agent:
    """One run. Make it, `run` it once."""

    def __init__(
        self,
        plan: CellPlan,
        world: World,
        stored: Stored,
        *,
        mode: DeliveryMode,
        version: str,
        public_key: str,
    ) -> None:
        self._plan = plan
        self._world = world
        self._stored = stored
        self._mode = mode
        self._desk = Desk(plan, version=version, public_key=public_key)
        self._reports = ReportPolicy(plan.state_report_s)
        self._acked: Position | None = None
        self._vouched = Health(online=True, epoch="", boot="")
        self._epoch = ""
        self._seq = 0
        self._refusals: RefusalBook
        self._schedules: dict[str, PollSchedule]
        self._pump: Pump
        self._courier: Courier
        self._pulse = Pulse({})

    def observe(self, what: str, detail: dict[str, Json]) -> None:
        """Put a fact into the journal; only while running."""
        self._pump.observe(what, detail)

    async def run(self, stop: asyncio.Event) -> None:
        """Begin an epoch and work until `stop`, then drain. Raises `StoreBrokenError` when storage fails."""
        await self._begin()
        self._world.lasting()
        self._begin_polling()
        turns_ms = {name: schedule.read_max_ms for name, schedule in self._schedules.items()}
        self._pulse = pulse = Pulse(turns_ms | dict.fromkeys(_OWN_LOOPS, 0))
        clock, pump, courier, naps = self._world.clock, self._pump, self._courier, Naps()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    poll_line(schedule, self._world.links[name], clock, pump, pulse.advance(name), naps=naps),
                    name=f"poll {name}",
                )
                for name, schedule in self._schedules.items()
            ]
            pumping = group.create_task(
                pump.run(courier.sender, self._reports, pulse.advance("pump")), name="pump"
            )
            carrying = group.create_task(courier.run(pulse.advance("courier")), name="courier")
            tasks.append(group.create_task(self._beat(pulse.advance("beat")), name="beat"))
            tasks.append(
                group.create_task(
                    watch_clock(clock, pump.pair, pump.set_wall, self._note_step, pulse.advance("clock")),
                    name="clock",
                )
            )
            pruning = prune_for_ever(self._world.outbox, courier.sender, clock, pulse.advance("pruning"))
            tasks.append(group.create_task(pruning, name="pruning"))
            tasks.append(group.create_task(feed_watchdog(pulse, self._world.notify), name="watchdog"))
            self._world.uplink.open(self._will(), courier.report)
            self._world.notify("READY=1")
            await stop.wait()
            await self._drain(tasks, pumping, carrying)

    async def _begin(self) -> None:
        """A new epoch, the engine that takes up from memory, and the loops' objects."""
        world, stored = self._world, self._stored
        pair = world.clock.pair()
        begun = await self._begin_epoch(pair)
        remembered = stored.recall()
        self._refusals = RefusalBook(self._plan, remembered)
        plan = self._refusals.plan
        engine = EdgeEngine(
            plan,
            epoch=self._epoch,
            boot=world.clock.boot,
            now=pair.mono,
            wall=pair,
            memory=remembered,
        )
        sender = Sender(self._mode, self._epoch, first=stored.first, tail=begun.tail, acked=stored.acked)
        for span in stored.gone:
            sender.lose(span)
        self._courier = Courier(
            sender,
            self._reports,
            world.outbox,
            world.uplink,
            self._desk,
            clock=world.clock,
            on_up=self._greet,
            on_fork=self._fork,
            on_damage=self._note_damage,
        )
        self._pump = Pump(
            engine,
            world.outbox,
            world.clock,
            pair,
            on_commit=self._committed,
            on_views=self._show,
            on_split=self._note_split,
        )
        self._pump.is_unhealed = begun.is_unhealed
        removed, memory = stale_topics(remembered, self._desk.own_topics())
        self._desk.forget(removed)
        if memory:
            self._pump.remember(memory)
        self._acked = await world.outbox.set_acked(sender.acked, sender.ever_acked)
        self._desk.put_views(engine.guard_views(), pair.label(pair.mono), self._seq)

    def _begin_polling(self) -> None:
        """From now on: to build the judges of a large plant takes longer than it is given to answer for the first time."""
        now = self._world.clock.mono()
        self._pump.engine.begin(now)
        self._schedules = line_schedules(self._refusals.plan, now)

    async def _begin_epoch(self, pair: WallPair) -> Committed:
        begun = await self._world.outbox.begin_epoch(pair)
        if isinstance(begun, StoreFull):
            raise StoreBrokenError("no room on the disk for the first event of this run")
        self._epoch, self._seq = begun.events[-1].epoch, begun.events[-1].seq
        return begun

    def _committed(self, committed: Committed) -> None:
        last = committed.events[-1]
        self._seq = last.seq
        self._courier.extend(committed)

    def _show(self, views: list[GuardView]) -> None:
        now = self._world.clock.mono()
        self._desk.put_views(views, self._pump.pair.label(now), self._seq)
        self._courier.poke()

    def _note_split(self, block: ReadBlock, parts: Sequence[ReadBlock]) -> None:
        self._pump.remember(self._refusals.add(block))
        self._pump.observe("block_split", told_split(block, parts))

    def _note_step(self, step_ms: int) -> None:
        self._pump.observe("clock_step", {"step_ms": step_ms})

    def _note_damage(self, span: Span) -> None:
        detail: dict[str, Json] = {"places": span.last - span.first + 1, "first_place": span.first}
        self._pump.observe("store_damaged", detail)

    async def _fork(self, ack: Ack) -> None:
        """The gateway holds another history of the present epoch: go on in a new one, and say so."""
        begun = await self._begin_epoch(self._world.clock.pair())
        self._pump.engine.begin_epoch(self._epoch)
        self._courier.sender.begin_epoch(self._epoch)
        self._courier.extend(begun)
        # whoever may write there may write any length: an event holds no more than a hash
        told_hash = None if ack.hash is None else ack.hash[:_HASH_CHARS]
        told: dict[str, Json] = {"acked_epoch": ack.epoch, "acked_seq": ack.seq, "acked_hash": told_hash}
        self._pump.observe("epoch_fork", told)
        # the last will names the epoch: connect anew, with the new one
        await self._world.uplink.close()
        self._world.uplink.open(self._will(), self._courier.report)

    def _will(self) -> Publication:
        health = Health(online=False, epoch=self._epoch, boot=self._world.clock.boot)
        return Publication(self._desk.topic(Channel.HEALTH), encode_status(health), retained=True)

    async def _greet(self) -> None:
        """A new connection: say everything again. Where judging lags no counter rises: this is no beat."""
        health = await self._health()
        if self._pump.is_behind(self._world.clock.mono()):
            was = self._vouched
            health = replace(
                health, polls=was.polls, overruns=was.overruns, beats=was.beats, mono_ms=was.mono_ms
            )
        at = self._pump.pair.label(self._world.clock.mono())
        self._desk.greet(self._epoch, health, at, self._seq, are_current=self._is_current())

    def _is_current(self) -> bool:
        """Whether guard states may be published as of now; else they are older than what is known: let them expire."""
        return not (self._pump.is_full or self._pump.is_behind(self._world.clock.mono()))

    async def _beat(self, advance: Callable[[], None]) -> None:
        """Health every two seconds, a share of the guard states every one.

        A beat vouches for what is shown: none is given while judging lags behind reading, and the gateway, which misses
        it, shows unknown.
        """
        period_s = HEALTH_PERIOD_MS / 1000
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        is_new = True
        while True:
            for _ in range(int(period_s)):
                if self._is_current():
                    self._desk.refresh(self._pump.pair.label(self._world.clock.mono()), self._seq)
                self._courier.poke()
                due_s = max(due_s + 1.0, loop.time())
                await asyncio.sleep(due_s - loop.time())
            health = None if self._pump.is_behind(self._world.clock.mono()) else await self._health()
            # the store may have hung while it was asked
            if health is not None and not self._pump.is_behind(self._world.clock.mono()):
                self._vouched = health
                self._desk.put_health(health)
                if is_new and self._pump.engine.is_settled:
                    is_new = False
                    self._world.lasting()
            self._courier.poke()
            if cleared := self._desk.take_cleared():
                self._pump.remember(cleared)
            advance()

    async def _health(self) -> Health:
        """How things stand.

        As long as something was lost that no stored report makes good, the outbox is told to be full: what a gateway shows is
        older than what is known here, so beats prove that the agent lives and vouch for nothing.
        """
        clock, pump, sender = self._world.clock, self._pump, self._courier.sender
        self._acked = await self._world.outbox.set_acked(sender.acked, sender.ever_acked)
        status = await self._world.outbox.status()
        pump.outbox_pct = 100 if pump.is_full else status.outbox_pct
        counted_at = clock.mono()
        devices = await self._device_healths()
        return Health(
            online=True,
            epoch=self._epoch,
            boot=clock.boot,
            at=pump.pair.label(clock.mono()),
            seq=self._seq,
            acked=self._acked,
            first=status.first,
            gone=status.gone,
            outbox_pct=100 if pump.is_mute else pump.outbox_pct,
            polls=sum(device.polls for device in devices.values()),
            overruns=sum(device.overruns for device in devices.values()),
            requests=self._requests(),
            beats=self._pulse.beats,
            mono_ms=counted_at // NS_PER_MS,
            devices=devices,
            clock=pump.pair.clock,
            clock_offset_ms=clock.offset_ms(),
            rss_mb=self._world.rss_mb(),
        )

    async def _device_healths(self) -> dict[str, DeviceHealth]:
        """Every device, some at a time: of a thousand it takes longer than an answer should wait."""
        engine, clock = self._pump.engine, self._world.clock
        counters: dict[DeviceId, PollCounters] = {}
        for order, schedule in enumerate(self._schedules.values(), 1):
            counters |= schedule.counters()
            if order % DEVICES_AT_ONCE == 0:
                await asyncio.sleep(0)
        none = PollCounters(0, 0, 0)
        devices: dict[str, DeviceHealth] = {}
        for order, device in enumerate(self._plan.devices, 1):
            counted, view = counters.get(device, none), engine.device_view(device, clock.mono())
            devices[device] = DeviceHealth(
                view.up, view.age_ms, counted.polls, counted.errors, counted.overruns
            )
            if order % DEVICES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return devices

    def _requests(self) -> dict[str, int]:
        """Requests sent since the start, by function code."""
        total: Counter[int] = Counter()
        for link in self._world.links.values():
            total.update(link.requests)
        return {str(function): total[function] for function in FUNCTION_CODES}

    async def _drain(
        self, producers: list[asyncio.Task[None]], pumping: asyncio.Task[None], carrying: asyncio.Task[None]
    ) -> None:
        """Stop in the order of the data's way, so that nothing is produced behind what has been drained."""
        for task in producers:
            task.cancel()
        self._pump.end()
        await asyncio.wait([*producers, pumping])
        sender = self._courier.sender
        await self._pump.step(sender, self._reports)
        last = await self._world.outbox.stop_clean(self._world.clock.pair())
        if not isinstance(last, StoreFull) and last.events:
            self._committed(last)
        looks = int(DRAIN_S / _DRAIN_LOOK_S)
        while looks and sender.is_connected and sender.acked < sender.tail:
            await asyncio.sleep(_DRAIN_LOOK_S)
            looks -= 1
        await self._world.outbox.set_acked(sender.acked, sender.ever_acked)
        carrying.cancel()
        await asyncio.wait([carrying])
        if sender.is_connected:
            self._world.uplink.publish(self._will())
        await self._world.uplink.close()
        for link in self._world.links.values():
            await link.close()
