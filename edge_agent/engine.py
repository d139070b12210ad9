"""The edge's brain: samples and time in, findings out. No clock, no I/O, no log, no await (sans-IO).

Theory of operation. The shell calls `receive_block` with every good reply, `receive_failure` with every read that
brought none, and `handle_timer` when `next_deadline` has come; it takes `take_effects` after each. Every call first
runs all deadlines up to its `now`, each at its own time, in order; so it makes no difference how late a timer fires.

    receive_block ─▶ [ equal bytes, nobody waiting: only the age moves ]
          │ changed bytes
          ▼
     changed signals ─▶ mark the nodes that read them ─▶ step marked nodes in order of dependence ─▶ findings
          ▲                                                        │ may arm a deadline
     one deadline heap: blocks going stale, nodes' timers ◀────────┘

The hot path is a comparison: bytes equal to the last good ones, on a block that no node is waiting on (`quiet`), move
`requested_at` and nothing else. A block's deadline is therefore queued once and, when it comes up, queued again for
the age that the block really has; those of a whole tenth of a second at once (`AHEAD_NS`), so that a plant that is well
sets off ten alarms a second, however many blocks it has. A node's deadline is queued only when it is earlier than the one queued already.

Everything is deterministic: nodes step by index, deadlines by time and index, and no set is ever iterated.
Memory (see `Findings`) is what a later engine needs to go on: open occurrences, last guard and machine states, lost
devices. Occurrences whose place left the configuration are cleared at the start (`removed`).

Source: house rules for sans-IO cores (h11, aioquic); the outside contract, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush, heapreplace
from typing import Final

from edge_agent.domain.assembly import Assembler, live_signals
from edge_agent.domain.decode import SharedReaders, Value, compile_decoder
from edge_agent.domain.device import DEVICE_KEY_PREFIX, DeviceWatch
from edge_agent.domain.division import divide
from edge_agent.domain.findings import DeviceView, Effect, Findings, GuardView, MachineView
from edge_agent.domain.guard import GUARD_KEY_PREFIX
from edge_agent.domain.heartbeat import Pulse
from edge_agent.domain.machine import MACHINE_KEY_PREFIX
from edge_agent.domain.node import Node
from edge_agent.domain.occurrence import OPEN_KEY_PREFIX, recalled
from edge_agent.domain.opening import OPENING_KEY_PREFIX
from edge_agent.domain.plan import CellPlan, ReadBlock
from edge_agent.domain.quality import SHORT, BadReason, BlockState, Supply
from edge_agent.domain.readers import readers_of_block, readers_of_signals
from edge_agent.domain.readsplit import pieces, split
from edge_agent.domain.report import pack_report
from edge_agent.domain.rule import REMOVED
from edge_agent.domain.units import NS_PER_S, BlockId, DeviceId, GuardId, MachineId, MonoNs, SignalId
from edge_agent.domain.wall import WallPair
from edge_agent.wire.event import Json, StateReport

AHEAD_NS: Final = NS_PER_S // 10
"""Blocks that would go stale within this are looked at together: each is then queued anew one tenth of a second earlier."""

_OWN_PREFIXES = (
    OPEN_KEY_PREFIX,
    GUARD_KEY_PREFIX,
    MACHINE_KEY_PREFIX,
    DEVICE_KEY_PREFIX,
    OPENING_KEY_PREFIX,
)


class EdgeEngine:
    """One agent's whole judgement. Times are monotonic nanoseconds; `wall` makes labels and decides nothing."""

    def __init__(
        self,
        plan: CellPlan,
        *,
        epoch: str,
        boot: str,
        now: MonoNs,
        wall: WallPair,
        memory: Mapping[str, Json],
    ) -> None:
        self._plan = plan
        self._now = now
        self._findings = Findings(epoch, boot, wall)
        beats = frozenset(device.heartbeat.signal for device in plan.devices.values() if device.heartbeat)
        self._blocks = [
            BlockState(block, now, has_heartbeat=not beats.isdisjoint(block.signals)) for block in plan.blocks
        ]
        self._pending = list(self._blocks)
        self._unseen = list(self._blocks)
        shared = SharedReaders()
        self._decoders = [compile_decoder(block, plan.signals, shared) for block in plan.blocks]
        self._signals = live_signals(plan, tuple(self._blocks))
        assembler = Assembler(plan, self._signals, tuple(self._blocks), self._findings, memory)
        self._cell = assembler.assemble(now)
        self._nodes = self._cell.nodes
        self._device_of = [self._cell.devices[block.device] for block in plan.blocks]
        # Devices and their R29 read qualities only: they are marked by those.
        judges = (*self._cell.machines.values(), *self._cell.guards, *self._cell.rules, *self._cell.tallies)
        self._readers_of_signal = readers_of_signals(judges, len(self._signals))
        self._readers_of_block = [readers_of_block(block, self._readers_of_signal) for block in plan.blocks]
        self._heap: list[tuple[MonoNs, int]] = []
        self._marked: list[int] = []
        for block in self._blocks:
            self._arm_block(block)
        self._take_up(memory)
        for node in self._nodes:
            self._arm(node)

    # What comes in.

    def set_wall(self, wall: WallPair) -> None:
        """A younger paired reading of both clocks, for labels from now on."""
        self._findings.wall = wall

    def begin_epoch(self, epoch: str) -> None:
        """Occurrences minted from now on carry this epoch (after an epoch fork)."""
        self._findings.epoch = epoch

    def begin(self, now: MonoNs) -> None:
        """Polling begins: the time in which nobody complains of a block without an answer counts from here."""
        for state in self._pending:
            state.expected_at = now

    def receive_block(self, block: BlockId, data: bytes, requested_at: MonoNs, now: MonoNs) -> None:
        """A good reply: `data` was asked for at `requested_at` and has come at `now`.

        One that is `stale_ms` old already, or older than the last one, is no sample.
        """
        heap = self._heap
        if heap and heap[0][0] <= now:
            self._run_deadlines(now)
        if not self.receive_unchanged(block, data, requested_at, now):
            self._now = max(self._now, now)
            self._receive(self._blocks[block], data, requested_at, self._now)

    def receive_unchanged(self, block: BlockId, data: bytes, requested_at: MonoNs, now: MonoNs) -> bool:
        """Take a good reply if that costs a comparison only: equal bytes, nobody waiting, no deadline due.

        False, and nothing done, when it must go through `receive_block`. It finds nothing, so there are no effects.
        """
        state = self._blocks[block]
        if not state.quiet or data != state.data:
            return False
        heap = self._heap
        if heap and heap[0][0] <= now and not self._put_off(now):
            return False
        self._now = max(self._now, now)
        if requested_at > state.requested_at and self._now - requested_at < state.stale_ns:
            state.requested_at = requested_at
        return True

    def is_current(self, now: MonoNs) -> bool:
        """Whether no deadline up to `now` is due, so that a reply of now can be received without taking anybody by surprise."""
        return self._put_off(now)

    def expect(self, block: BlockId, requested_at: MonoNs) -> None:
        """A good reply asked for at `requested_at` has come and waits: while that is young enough, its block is not lost.

        For a shell that is late: deadlines are overdue then, and the replies are received one after the other. A reply
        asked for when the content had already outlived its time bridges nothing: until then nobody looked.
        """
        state = self._blocks[block]
        if requested_at < state.stale_at:
            state.expected_at = max(state.expected_at, requested_at)

    def stale_ns(self, block: BlockId) -> int:
        """How long after its request a reply to this block is believed."""
        return self._blocks[block].stale_ns

    def receive_failure(self, block: BlockId, reason: BadReason, now: MonoNs) -> None:
        """A read that brought no sample: no reply, a refusal, a reply that cannot be believed."""
        self._advance(now)
        self._fail(self._blocks[block], reason, self._now)

    def handle_timer(self, now: MonoNs) -> None:
        """Time has passed: everything due by `now` happens, each at its own time."""
        self._advance(now)

    def split_block(self, block: BlockId) -> tuple[ReadBlock, ...]:
        """The smaller blocks that are to be asked for instead of `block`, its device having refused it.

        The first keeps its id, a second one gets the next. One equal to what it was: it cannot be split. Nothing is
        found by this, and no signal changes. Replies to the old shape that came before must have been received.
        """
        state, device = self._blocks[block], self._device_of[block]
        parts = split(state.plan, self._plan.signals, BlockId(len(self._blocks)))
        if parts == (state.plan,):
            return parts
        states = divide(state, parts, self._signals, device, self._readers_of_block[block])
        decoders = [compile_decoder(part, self._plan.signals) for part in parts]
        readers = [readers_of_block(part, self._readers_of_signal) for part in parts]
        self._blocks[block], self._decoders[block] = states[0], decoders[0]
        self._readers_of_block[block] = readers[0]
        self._blocks += states[1:]
        self._decoders += decoders[1:]
        self._readers_of_block += readers[1:]
        self._device_of += [device for _ in parts[1:]]
        self._pending = [other for other in self._pending if other is not state] + states
        self._unseen = [other for other in self._unseen if other is not state] + states
        for part in states[1:]:
            if part.supply is not Supply.LOST:
                self._arm_block(part)
        return parts

    def pieces(self, block: BlockId) -> tuple[ReadBlock, ...]:
        """What of `block` can be asked for alone, to see whether its device gives any of it."""
        return pieces(self._blocks[block].plan, self._plan.signals)

    # What goes out.

    def next_deadline(self) -> MonoNs | None:
        """When `handle_timer` should be called at the latest; it may then find that nothing is due yet."""
        self._put_off(MonoNs(self._now + AHEAD_NS))
        return self._heap[0][0] if self._heap else None

    def take_effects(self) -> list[Effect]:
        """What has been found since the last call: at most one `RecordEvents`, then the states to publish."""
        return self._findings.take()

    @property
    def has_found(self) -> bool:
        """Whether anything waits for `take_effects`."""
        return self._findings.is_waiting

    @property
    def found_count(self) -> int:
        """How many events wait for `take_effects`."""
        return self._findings.count

    @property
    def is_settled(self) -> bool:
        """Whether every block has been answered or gone stale: the first state report of a run waits for it."""
        self._pending = [block for block in self._pending if block.is_pending]
        return not self._pending

    @property
    def unseen_count(self) -> int:
        """How many blocks were never good in this run: a state report says nothing of what lives there."""
        self._unseen = [block for block in self._unseen if block.supply is not Supply.GOOD]
        return len(self._unseen)

    def state_report(self, now: MonoNs) -> list[StateReport]:
        """The parts of a complete report as of `now`."""
        self._advance(now)
        occurrences = [rule.occurrence.listed() for rule in self._cell.rules if rule.occurrence is not None]
        return pack_report(self.guard_views(), self.machine_views(), occurrences)

    def guard_views(self) -> list[GuardView]:
        """Every guard as it is to be shown, in board order."""
        return [guard.view for guard in self._cell.guards]

    def guard_view(self, machine: MachineId, guard: GuardId) -> GuardView:
        """One guard as it is to be shown. Raises `KeyError` for one that is not configured."""
        for watch in self._cell.guards:
            if (watch.plan.machine, watch.plan.id) == (machine, guard):
                return watch.view
        raise KeyError(f"{machine}/{guard}")

    def machine_views(self) -> list[MachineView]:
        """Every machine as it stands, in board order."""
        return [machine.view() for machine in self._cell.machines.values()]

    def device_view(self, device: DeviceId, now: MonoNs) -> DeviceView:
        """One device as health shows it. Raises `KeyError` for one that is not configured."""
        return self._cell.devices[device].view(now)

    # Samples.

    def _receive(self, state: BlockState, data: bytes, requested_at: MonoNs, now: MonoNs) -> None:
        if now - requested_at >= state.stale_ns or requested_at < state.requested_at:
            return
        if len(data) != state.plan.length_bytes:
            self._fail(state, SHORT, now)
            return
        is_fresh = state.supply is not Supply.GOOD
        readings = self._readings(state, data, is_fresh=is_fresh)
        device = self._device_of[state.plan.id]
        if state.has_heartbeat:
            self._hear(device, readings, now)
        supply = device.supply_of(state, now)
        if supply not in (Supply.GOOD, Supply.FROZEN):
            return  # the heartbeat has yet to move
        state.read_before = None if state.data is None else state.requested_at
        state.data, state.requested_at, state.failure = data, requested_at, None
        was_lost = state.supply is Supply.LOST
        self._enter(state, supply)
        self._vouch(state)
        if supply is Supply.GOOD:
            self._apply(state, readings, device, now)
            state.is_unproven = device.awaits_proof(state)
        if was_lost:
            self._arm_block(state)
        for index in state.watchers:
            self._mark(self._nodes[index])
        self._settle(now, sampled=True)
        state.settle_quiet()

    def _readings(self, state: BlockState, data: bytes, *, is_fresh: bool) -> list[tuple[SignalId, Value]]:
        decoder = self._decoders[state.plan.id]
        if is_fresh or state.data is None or state.is_unproven or (state.has_proof and data != state.data):
            return list(zip(state.plan.signals, decoder.decode_all(data), strict=True))
        if data == state.data:
            return []
        signals = state.plan.signals
        return [(signals[index], value) for index, value in decoder.changed(state.data, data)]

    def _hear(self, device: DeviceWatch, readings: list[tuple[SignalId, Value]], now: MonoNs) -> None:
        """The block holds its device's heartbeat: it freezes everything when it stands still."""
        heartbeat = device.heartbeat
        assert heartbeat is not None
        beat = heartbeat.signal.plan.id
        heartbeat.hear(next((value for signal, value in readings if signal == beat), heartbeat.content), now)
        if heartbeat.pulse is Pulse.STANDING:
            for block in device.blocks:
                if block.supply is Supply.GOOD:
                    self._enter(block, Supply.FROZEN)

    def _apply(
        self,
        state: BlockState,
        readings: list[tuple[SignalId, Value]],
        device: DeviceWatch,
        now: MonoNs,
    ) -> None:
        if state.has_proof and readings:
            contents = dict(readings)
            for check in device.checks:
                if check.block is state and check.signal.take(contents[check.signal.plan.id], now):
                    self._mark(device)
            self._recheck(state, device)
        for signal_id, content in readings:
            signal = self._signals[signal_id]
            quality = signal.quality
            if signal.take(content, now):
                self._mark_all(self._readers_of_signal[signal_id])
            if signal.quality is not quality:
                self._mark(device)
        if state.debouncing:
            for signal_id in state.plan.signals:
                if self._signals[signal_id].ripen(now):
                    self._mark_all(self._readers_of_signal[signal_id])

    def _recheck(self, state: BlockState, device: DeviceWatch) -> None:
        """Presence checks that are read in this block may have changed: what they cover elsewhere follows.

        Without its proof it is unknown at once; with it, its next reply is looked at anew.
        """
        for check in device.checks:
            if check.block is not state:
                continue
            check.settle(self._now)
            for signal in check.covered:
                block = signal.block
                if block is state or block.supply is not Supply.GOOD:
                    continue
                if check.is_proven:
                    block.is_unproven = block.is_unproven or not signal.is_good
                    block.settle_quiet()
                elif (doubt := check.doubt(block)) is not None and signal.blind(doubt):
                    self._mark_all(self._readers_of_signal[signal.plan.id])
                    self._mark(device)

    def _fail(self, state: BlockState, reason: BadReason, now: MonoNs) -> None:
        was = state.quality
        state.failure = reason
        if state.supply is Supply.GOOD:
            state.failed_at = now
        state.quiet = False
        self._vouch(state)
        if state.quality is not was:
            self._blind(state)
            self._settle(now, sampled=False)

    # Supply.

    def _enter(self, state: BlockState, supply: Supply) -> None:
        """The block's supply becomes this; without a good one, its signals are blind."""
        if state.supply is supply:
            return
        if state.supply is Supply.GOOD:
            beat_at = self._device_of[state.plan.id].last_beat_at
            state.trusted_until = state.requested_at if supply is Supply.LOST else beat_at
        state.supply = supply
        self._vouch(state)
        if supply is Supply.GOOD:
            self._mark_all(self._readers_of_block[state.plan.id])
            self._mark(self._device_of[state.plan.id])
        else:
            self._blind(state)

    def _vouch(self, state: BlockState) -> None:
        """While a heartbeat cannot be read, nothing of its device may be quiet: it is believed for a limited time only."""
        if not state.has_heartbeat:
            return
        is_unread = state.supply is not Supply.GOOD or state.failure is not None
        for block in self._device_of[state.plan.id].blocks:
            if block.is_unvouched is not is_unread:
                block.is_unvouched = is_unread
                block.settle_quiet()

    def _blind(self, state: BlockState) -> None:
        quality = state.quality
        for signal_id in state.plan.signals:
            self._signals[signal_id].blind(quality)
        if state.has_proof:
            self._recheck(state, self._device_of[state.plan.id])
        state.settle_quiet()
        self._mark_all(self._readers_of_block[state.plan.id])
        self._mark(self._device_of[state.plan.id])

    # Time.

    def _advance(self, now: MonoNs) -> None:
        self._run_deadlines(now)
        self._now = max(self._now, now)

    def _run_deadlines(self, now: MonoNs) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now:
            due = heap[0][0]
            while heap and heap[0][0] == due:
                index = heappop(heap)[1]
                if index < 0:
                    self._expire(self._blocks[~index], due)
                else:
                    self._wake(self._nodes[index], due)
            self._now = max(self._now, due)
            self._settle(due, sampled=False)

    def _expire(self, state: BlockState, due: MonoNs) -> None:
        if state.stale_at > due:
            self._arm_block(state)
        else:
            self._enter(state, Supply.LOST)

    def _put_off(self, until: MonoNs) -> bool:
        """Queue blocks that were answered meanwhile again, for the age that they have; False if more is due by `until`."""
        heap, blocks = self._heap, self._blocks
        while heap and heap[0][0] <= until:
            due, index = heap[0]
            if index >= 0 or (stale_at := blocks[~index].stale_at) <= due:
                return False
            heapreplace(heap, (stale_at, index))
        return True

    def _wake(self, node: Node, due: MonoNs) -> None:
        node.armed = None
        if node.due is not None and node.due <= due:
            self._mark(node)
        else:
            self._arm(node)

    def _arm_block(self, state: BlockState) -> None:
        # Below zero stand the blocks: at any moment they come before the nodes.
        heappush(self._heap, (state.stale_at, ~state.plan.id))

    def _arm(self, node: Node) -> None:
        due = node.due
        if due is not None and (node.armed is None or due < node.armed):
            node.armed = due
            heappush(self._heap, (due, node.index))

    # Stepping.

    def _mark(self, node: Node) -> None:
        if not node.is_marked:
            node.is_marked = True
            heappush(self._marked, node.index)

    def _mark_all(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            self._mark(node)

    def _settle(self, now: MonoNs, *, sampled: bool) -> None:
        """Step what is marked, in order of dependence; a step may mark what comes after it."""
        marked = self._marked
        while marked:
            node = self._nodes[heappop(marked)]
            node.is_marked = False
            if node.step(now, sampled=sampled):
                self._mark_all(node.readers)
            self._arm(node)

    # Start.

    def _take_up(self, memory: Mapping[str, Json]) -> None:
        """Go on with what an earlier run left open; close what has no place any more."""
        if not memory:
            return
        rules = {rule.key: rule for rule in self._cell.rules}
        known_keys = self._cell.memory_keys()
        for key in sorted(memory):
            if not key.startswith(_OWN_PREFIXES) or key in known_keys:
                continue
            occurrence = (
                recalled(memory[key], self._findings.boot) if key.startswith(OPEN_KEY_PREFIX) else None
            )
            rule = rules.get(key)
            if occurrence is not None and rule is not None:
                rule.restore(occurrence)
                continue
            self._findings.remember(key, None)
            if occurrence is not None:
                self._findings.note(self._now, occurrence.cleared(self._now, self._findings.wall, REMOVED))
        known = {rule.occurrence.id for rule in self._cell.rules if rule.occurrence is not None}
        for rule in self._cell.rules:
            parent = None if rule.occurrence is None else rule.occurrence.hidden_by
            if parent is not None and parent not in known:
                rule.unhide(parent, self._now)
