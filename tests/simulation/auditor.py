"""The auditor: watches a run from outside and says which promise was broken.

It has a model of its own and shares none with the product: what is so comes from the plant's truth log and from the
log of served reads; what was said comes from the bytes that were committed. It never asks a rule or an alarm what it
thinks. `look` is called every virtual second, `on_…` at each commit and ack, `conclude` once everything has healed;
`stream_audit`, `truth_audit` and `alarm_audit` hold what is judged at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.domain.delivery import EVENTS_AHEAD_MAX
from edge_agent.domain.plan import CellPlan, Table
from edge_agent.runtime.pump import INBOX_MAX
from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import Event, GuardState, Position
from edge_agent.wire.status import STATE_EXPIRY_S, decode_ack, decode_guard_status
from edge_agent.wire.topics import Channel, topic
from gateway.domain.board import View, guard_document
from gateway.domain.journal import EdgeEvent, Entry, FindingCleared, FindingRaised, GatewayRule
from simulators.cell import Cell
from simulators.truth import Fact
from tests.simulation import alarm_audit, stream_audit, truth_audit
from tests.simulation.agent_node import AgentNode
from tests.simulation.fieldbus import ServedLog
from tests.simulation.findings import Check, Finding
from tests.simulation.gateway_node import GatewayNode
from tests.simulation.network import QUEUE_MAX, SimBroker
from tests.simulation.virtual_loop import NS_PER_S

MS: Final = 1_000_000

LOOK_NS: Final = 300 * MS
"""What may pass between a deadline and the state that follows from it: one commit of a slow disk."""

BOARD_NS: Final = 15 * NS_PER_S
"""A board may lag by a heartbeat's 5 s or the 6 s of missed beats, and the way there."""

RETAINED_NS: Final = BOARD_NS + STATE_EXPIRY_S * NS_PER_S
"""A retained state may outlive its agent by its expiry."""

CLOSED: Final = frozenset({GuardState.CLOSED.value, GuardState.CLOSED_LOCKED.value})


@dataclass(frozen=True, slots=True)
class Said:
    """An event as it was committed: when, when it says it was observed (virtual ns), and in which store."""

    event: Event
    at_ns: int
    observed_ns: int
    store: int


class Auditor:
    """One run's. `findings` holds at most `FINDINGS_MAX` of each check: the first ones tell the story."""

    FINDINGS_MAX: Final = 5

    def __init__(
        self,
        plan: CellPlan,
        agent: AgentNode,
        gateway: GatewayNode,
        cell: Cell,
        served: ServedLog,
        broker: SimBroker,
    ) -> None:
        self.plan = plan
        self.agent = agent
        self.gateway = gateway
        self.cell = cell
        self.served = served
        self.broker = broker
        self.findings: list[Finding] = []
        self.said: list[Said] = []
        self.store = 0
        self.store_mishaps: list[int] = []
        self.journal_mishaps: list[int] = []
        self.disk_full: list[tuple[int, int]] = []
        """When the agent's disk took nothing: what it found then and died with is nowhere."""
        self.tolerance_ns = 0
        self._doubts: set[str] = set()
        self._durable: set[Position] = set()
        self._reads_seen = 0
        self._good_ns: dict[tuple[str, int], int] = {}
        self._live_ns: dict[str, int] = {}
        self._watched_ns: dict[str, int] = {}
        self._door_block: dict[str, int] = {
            block.device: block.id for block in plan.blocks if block.table is Table.DISCRETE_INPUT
        }

    @property
    def now_ns(self) -> int:
        """Virtual time."""
        return self.agent.loop.now_ns

    @property
    def is_in_doubt(self) -> bool:
        """Whether the gateway believes that two agents share one identity: then it reconciles nothing for a while."""
        return bool(self._doubts)

    def find(self, check: Check, text: str) -> None:
        """A promise was broken."""
        if sum(finding.check is check for finding in self.findings) < self.FINDINGS_MAX:
            self.findings.append(Finding(check, self.now_ns / NS_PER_S, text))

    # what happens

    def on_agent_commit(self, events: Sequence[Event]) -> None:
        """The agent's store has these on disk."""
        for event in events:
            observed_ns = self.agent.clock.virtual_ns(event.boot, event.mono_ms)
            self.said.append(
                Said(event, self.now_ns, self.now_ns if observed_ns is None else observed_ns, self.store)
            )

    def on_gateway_commit(self, entries: Sequence[Entry]) -> None:
        """The gateway's journal has these on disk."""
        for entry in entries:
            match entry.body:
                case FindingRaised(rule=GatewayRule.IDENTITY_CONFLICT, occurrence=occurrence):
                    self._doubts.add(occurrence)
                case FindingCleared(occurrence=occurrence):
                    self._doubts.discard(occurrence)
                case _:
                    pass

    def on_ack(self, topic: str, payload: bytes) -> None:
        """The gateway promises something: it must be in the file, as another reader sees it."""
        ack = decode_ack(payload)
        if isinstance(ack, DecodeError):
            self.find(Check.ACK_ONLY_AFTER_COMMIT, f"unreadable ack on {topic}: {payload[:80]!r}")
            return
        if ack.position is None or ack.position in self._durable:
            return
        with sqlite3.connect(self.gateway.path) as reader:
            held = reader.execute(
                "SELECT hash FROM journal WHERE epoch=? AND seq=?", (ack.position.epoch, ack.position.seq)
            ).fetchone()
        reader.close()
        if held is None or held[0] != ack.position.hash:
            self.find(Check.ACK_ONLY_AFTER_COMMIT, f"acked {ack.position}, the journal holds {held}")
        self._durable.add(ack.position)

    def note_store_lost(self) -> None:
        """The agent's disk was replaced by an empty one."""
        self.store += 1
        self.store_mishaps.append(self.now_ns)

    def note_store_restored(self) -> None:
        """The agent's disk was replaced by an older image."""
        self.note_store_lost()

    def note_journal_replaced(self) -> None:
        """The gateway's journal was replaced by a backup, or deleted."""
        self.journal_mishaps.append(self.now_ns)
        self._doubts.clear()
        self._durable.clear()

    # what can be seen while it happens

    def look(self) -> None:
        """Once a second: is anything shown that may not be shown, does anything grow?"""
        self._take_reads()
        self._look_at_agent()
        self._look_at_board()
        self._look_at_retained()
        self._look_at_queues()
        for failure in (*self.agent.failures, *self.gateway.failures):
            self.find(Check.NOBODY_DIES_BY_HIMSELF, failure)
        self.agent.failures.clear()
        self.gateway.failures.clear()

    def conclude(self) -> None:
        """Everything has healed: judge the whole run."""
        self.look()
        stream_audit.audit(self)
        truth_audit.audit(self)
        alarm_audit.audit(self)

    def _take_reads(self) -> None:
        reads = self.served.reads
        for index in range(self._reads_seen, len(reads)):
            read = reads[index]
            if not read.is_good:
                continue
            block = (read.device, read.block)
            # A stopped counter is only known to stand while it is watched: after a gap that begins anew.
            gap_ns = read.requested_ns - self._good_ns.get(block, 0)
            is_reborn = self._good_ns.get(block, 0) < self.agent.born_ns <= read.requested_ns
            if is_reborn or gap_ns > self.plan.devices[read.device].stale_ms * MS:  # type: ignore[index]
                self._watched_ns[read.device] = read.ended_ns
            self._good_ns[block] = read.requested_ns
            if read.plain is not None:
                self._live_ns[read.device] = read.requested_ns
        self._reads_seen = len(reads)

    def _stopped_ns(self, device: str) -> int:
        """For how long the device's program is known to the agent, or could be, to stand still or be out of reach."""
        since_ns = max(self._live_ns.get(device, 0), self._watched_ns.get(device, 0))
        return self.now_ns - since_ns

    def _look_at_agent(self) -> None:
        agent = self.agent
        if not agent.is_running or agent.agent is None or not hasattr(agent.agent, "_pump"):
            return
        engine = agent.agent._pump.engine
        for machine in self.plan.machines.values():
            for guard in machine.guards:
                device = self.plan.devices[self.plan.signals[guard.channels[0]].device]
                block = (device.id, self._door_block[device.id])
                view = engine.guard_view(machine.id, guard.id)
                if view.state is GuardState.UNKNOWN:
                    continue
                frozen_ms = device.heartbeat.stale_ms if device.heartbeat else device.stale_ms
                slack_ns = LOOK_NS + self.tolerance_ns
                silent_ns = self.now_ns - self._good_ns.get(block, 0)
                stopped_ns = self._stopped_ns(device.id)
                is_late = (
                    silent_ns > device.stale_ms * MS + slack_ns
                    or stopped_ns > (frozen_ms + device.stale_ms + 2 * device.poll_ms) * MS + slack_ns
                )
                if is_late:
                    what = (
                        f"{guard.path} is {view.state} {silent_ns / NS_PER_S:.1f} s after its last good read"
                    )
                    self.find(
                        Check.UNKNOWN_WITHIN_BOUND, f"{what}, {stopped_ns / NS_PER_S:.1f} s after a live one"
                    )
                    if view.state in CLOSED:
                        self.find(Check.NEVER_CLOSED_ON_STALE_DATA, f"the agent says: {what}")

    def _look_at_board(self) -> None:
        parts = self.gateway.parts
        if parts is None or not self.gateway.is_running:
            return
        view = View(parts.plant.state, {}, parts.clock.utc_ms())
        for machine in self.plan.machines.values():
            for guard in machine.guards:
                shown = guard_document(view, (self.plan.site, machine.id, guard.id))
                if shown is None or shown["state"] not in CLOSED:
                    continue
                device = self.plan.signals[guard.channels[0]].device
                unseen_ns = self._stopped_ns(device)
                open_ns = self._open_ns(machine.id, guard.id)
                if max(unseen_ns, open_ns) > BOARD_NS + self.tolerance_ns:
                    self.find(
                        Check.NEVER_CLOSED_ON_STALE_DATA,
                        f"the board shows {guard.path} {shown['state']}: last seen {unseen_ns / NS_PER_S:.1f} s"
                        f" ago, really open for {open_ns / NS_PER_S:.1f} s",
                    )

    def _look_at_retained(self) -> None:
        """What third parties read off the broker."""
        for machine in self.plan.machines.values():
            for guard in machine.guards:
                name = topic(self.plan.site, self.plan.agent, Channel.STATE, machine.id, guard.id)
                status = decode_guard_status(self.broker.retained(name) or b"")
                open_ns = self._open_ns(machine.id, guard.id)
                if isinstance(status, DecodeError) or status.state not in CLOSED:
                    continue
                if open_ns > RETAINED_NS + self.tolerance_ns:
                    self.find(
                        Check.NEVER_CLOSED_ON_STALE_DATA,
                        f"{name} says {status.state} as of {status.at}: really open for"
                        f" {open_ns / NS_PER_S:.1f} s",
                    )

    def _open_ns(self, machine: str, guard: str) -> int:
        """For how long the guard's channels have really said that it is not closed."""
        span = self.cell.log._open[Fact(machine, guard, "indicated_closed")]
        return 0 if span.value else self.now_ns - span.from_ms * MS

    def _look_at_queues(self) -> None:
        agent = self.agent.agent
        if agent is not None and self.agent.is_running and hasattr(agent, "_pump"):
            ahead, inbox = agent._courier.sender._count_ahead(), len(agent._pump._inbox)
            if ahead > EVENTS_AHEAD_MAX or inbox > INBOX_MAX:
                self.find(Check.QUEUES_WITHIN_LIMITS, f"{ahead} events ahead, {inbox} replies in the inbox")
        for connection in self.broker.connections:
            if connection.waiting > QUEUE_MAX:
                self.find(Check.QUEUES_WITHIN_LIMITS, f"{connection.waiting} wait for {connection.client}")

    def journaled(self) -> list[EdgeEvent]:
        """Every agent's event in the journal, in order, read from the file."""
        assert self.gateway.parts is not None
        entries = self.gateway.parts.journal.entries_after(0, 1_000_000)
        return [entry.body for entry in entries if isinstance(entry.body, EdgeEvent)]
