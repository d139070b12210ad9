"""From the broker into the journal: one batch, one transaction, then the promises.

    batch ──▶ sort by topic ──▶ ONE transaction ──COMMIT──▶ PUBACK ──▶ cumulative ack, retained, per epoch
                │                  │  unavailable: the same batch again after a pause, nothing promised meanwhile
                │                  └─ Admission: events, gaps, findings, reconciling, quarantine, birth certificates
                └─ health: straight to presence; it may call for a reset

Nothing is acknowledged that is not on disk. A payload that cannot be read is kept raw and PUBACKed, so that it never
blocks what follows. Beside the batches a tick twice a second alarms holes that did not fill, and ends findings that
were quiet long enough.

Source: the delivery protocol, section 3 (README); the outside contract, sections 3 and 5.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from edge_agent.wire.codec import DecodeError, decode
from edge_agent.wire.event import Event, Position
from edge_agent.wire.status import Ack, Health, decode_health, decode_health_page, encode_status
from edge_agent.wire.topics import Address, Channel, parse, topic
from gateway.domain.birth import agent_digest, machine_digest, read_agent_birth, read_machine_birth
from gateway.domain.findings import OpenFindings, Subject
from gateway.domain.journal import AgentModelled, GatewayRule, MachineModelled, MachineRemoved
from gateway.domain.occurred import Anchor, anchor_of
from gateway.domain.stream import Lost, Verdict, answer, demand_reset
from gateway.ports import Clock, Intake, Journal, JournalUnavailable, Message, Recording
from gateway.services.admission import Admission, AgentKey, BootKey, EpochKey, Outcome
from gateway.services.presence import PresenceWatch
from gateway.services.pulse import NAP_S, Advance, unwatched

T = TypeVar("T")

TICK_S = 0.5
"""How often holes and quiet findings are looked at: an eighth of the shortest of their limits."""

HOLE_ALARM_MS = 4000
"""A hole that may still fill is alarmed after this: visible within 5 s, the next look and a commit included (delivery
protocol §3.3, reliability invariant I-12), while an agent sends again after 2 s."""

DOUBT_MS = 600_000
"""Nothing is reconciled so long after the last event of a second agent (delivery protocol §3.5)."""

QUIET_MS = {
    GatewayRule.IDENTITY_CONFLICT: DOUBT_MS,
    GatewayRule.EVIDENCE_CONFLICT: 3_600_000,
    GatewayRule.QUARANTINE: 3_600_000,
    GatewayRule.JOURNAL_DAMAGED: 3_600_000,
    GatewayRule.STORE_DAMAGED: 3_600_000,
}
"""A finding that is an event, not a state, is over when it was not seen again for so long: an hour is a shift's check."""

RETRY_S = 1.0
"""Pause before a batch is tried again while the journal cannot be written (a full disk, a database restarting)."""

QUARANTINE_PER_MINUTE = 100
"""Payloads kept raw per minute: enough to see what is wrong, a bound for whoever floods the broker."""


@dataclass(slots=True)
class Counters:
    """What ingest did since start, for the metrics page."""

    admitted: int = 0
    duplicates: int = 0
    dropped: int = 0
    conflicts: int = 0
    quarantined: int = 0
    refused_uncounted: int = 0
    resets: int = 0


@dataclass(slots=True)
class _Sorted:
    """One batch by what it calls for; everything in the order of arrival."""

    events: list[tuple[Event, str]] = field(default_factory=list)
    births: list[AgentModelled | MachineModelled | MachineRemoved] = field(default_factory=list)
    refused: list[tuple[str, bytes, str, AgentKey | None]] = field(default_factory=list)
    healths: dict[AgentKey, Health] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether it needs no transaction."""
        return not (self.events or self.births or self.refused or self.healths)


@dataclass(frozen=True, slots=True)
class _Result:
    """What a committed batch leads to. `verified`: positions that agents named as acked, and that are held."""

    outcome: Outcome
    acks: Sequence[tuple[AgentKey, Ack]]
    verified: Mapping[AgentKey, Position]


class Ingest:
    """The service. `run` takes batches until cancelled, `watch` ticks; both belong into the process's task group."""

    def __init__(
        self, journal: Journal, intake: Intake, clock: Clock, findings: OpenFindings, presence: PresenceWatch
    ) -> None:
        self._journal = journal
        self._intake = intake
        self._clock = clock
        self._findings = findings
        self._presence = presence
        self._started_ms = clock.monotonic_ms()
        self._holes: dict[EpochKey, tuple[Lost, int]] = {}
        self._seen_ms: dict[Subject, int] = {}
        """When findings that end by being quiet were seen last: those that are open, and at most a tick's others."""
        self._promised: dict[AgentKey, Position] = {}
        self._quarantine_times: deque[int] = deque(maxlen=QUARANTINE_PER_MINUTE)
        self._advance = self._advance_watch = unwatched
        self.counters = Counters()

    async def run(self, advance: Advance = unwatched) -> NoReturn:
        """Take batches for ever."""
        self._advance = advance
        while True:
            messages = await self._next_batch()
            if messages:
                await self.take(messages)
            advance()

    async def watch(self, advance: Advance = unwatched) -> NoReturn:
        """Tick for ever."""
        self._advance_watch = advance
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()
            advance()

    async def _next_batch(self) -> Sequence[Message]:
        """What has arrived, or nothing for a nap."""
        try:
            async with asyncio.timeout(NAP_S):
                return await self._intake.batch()
        except TimeoutError:
            return ()

    async def take(self, messages: Sequence[Message]) -> None:
        """Journal one batch, then acknowledge it. Returns only when it is on disk."""
        batch = self._sort(messages)
        if not batch.is_idle:
            healths, doubted = self._presence.newest(), self._doubted()
            result = await self._persist(
                lambda recording: self._store(recording, batch, healths, doubted), self._advance
            )
            self._take_over(result.outcome)
            self._promised.update(result.verified)
            self._intake.done(messages)
            for key, ack in result.acks:
                self._promise(key, ack)
        else:
            self._intake.done(messages)

    async def tick(self) -> None:
        """Alarm holes that did not fill in time; end findings that were quiet long enough."""
        now, open_subjects = self._clock.monotonic_ms(), self._open_subjects()
        self._seen_ms = {subject: self._last_seen_ms(subject) for subject in open_subjects}
        holes = {key: lost for key, (lost, since) in self._holes.items() if now - since >= HOLE_ALARM_MS}
        quiet = [
            subject
            for subject in open_subjects
            if now - self._last_seen_ms(subject) >= QUIET_MS[subject.rule]
        ]
        if not holes and not quiet:
            return

        def note(recording: Recording) -> None:
            admission = Admission(recording, self._findings, {}, {}, ())
            for key, lost in holes.items():
                if key in self._holes:  # not filled while this waited for its turn
                    admission.find_gap(key[:2], lost, final=False)
            for subject in quiet:
                admission.clear(subject, "not seen again")

        await self._persist(note, self._advance_watch)
        for key in holes:
            self._holes.pop(key, None)

    async def _persist(self, work: Callable[[Recording], T], advance: Advance) -> T:
        while True:
            try:
                return await self._journal.transact(work)
            except JournalUnavailable:
                await asyncio.sleep(RETRY_S)
                advance()

    def _sort(self, messages: Sequence[Message]) -> _Sorted:
        batch = _Sorted()
        for message in messages:
            address = parse(message.topic)
            problem = "not a topic of ours" if address is None else self._sort_one(batch, message, address)
            if problem is not None:
                key = None if address is None else (address.site, address.agent)
                self._refuse(batch, message, problem, key)
        return batch

    def _sort_one(self, batch: _Sorted, message: Message, address: Address) -> str | None:
        """Put one message where it belongs; returns what is wrong with it, if anything."""
        key = (address.site, address.agent)
        match address.channel, address.rest:
            case Channel.EVENTS, ():
                return self._sort_event(batch, message, key)
            case Channel.HEALTH, ():
                return self._sort_health(batch, message, key)
            case Channel.HEALTH, (_,):
                page = decode_health_page(message.payload)
                if isinstance(page, DecodeError):
                    return page.reason if message.payload else None
                self._presence.hear_page(key, page)
                return None
            case Channel.MODEL, ():
                return (
                    self._sort_birth(batch, read_agent_birth(*key, message.payload))
                    if message.payload
                    else None
                )
            case Channel.MODEL, (machine,):
                if not message.payload:
                    batch.births.append(MachineRemoved(*key, machine))
                    return None
                return self._sort_birth(batch, read_machine_birth(*key, machine, message.payload))
            case _:
                return "nothing that the gateway listens to"

    def _sort_event(self, batch: _Sorted, message: Message, key: AgentKey) -> str | None:
        event = decode(message.payload)
        if isinstance(event, DecodeError):
            return event.reason
        if (event.site, event.agent) != key:
            return f"an event of {event.site}/{event.agent} on the topic of {key[0]}/{key[1]}"
        batch.events.append((event, message.topic))
        return None

    def _sort_health(self, batch: _Sorted, message: Message, key: AgentKey) -> str | None:
        if not message.payload:
            return None  # a retained health that somebody cleared
        health = decode_health(message.payload)
        if isinstance(health, DecodeError):
            return health.reason
        self._presence.hear(key, health, retained=message.retain)
        if health.acked is not None and self._promised.get(key) != health.acked:
            batch.healths[key] = health
        return None

    @staticmethod
    def _sort_birth(batch: _Sorted, birth: AgentModelled | MachineModelled | DecodeError) -> str | None:
        if isinstance(birth, DecodeError):
            return birth.reason
        batch.births.append(birth)
        return None

    def _refuse(self, batch: _Sorted, message: Message, problem: str, key: AgentKey | None) -> None:
        now, times = self._clock.monotonic_ms(), self._quarantine_times
        if len(times) == QUARANTINE_PER_MINUTE and now - times[0] < 60_000:
            self.counters.refused_uncounted += 1
            return
        times.append(now)
        self.counters.quarantined += 1
        batch.refused.append((message.topic, message.payload, problem, key))

    def _store(
        self,
        recording: Recording,
        batch: _Sorted,
        healths: Mapping[AgentKey, Health],
        doubted: Collection[AgentKey],
    ) -> _Result:
        """In the writer thread: the whole batch, and the answers that it calls for once it is on disk."""
        admission = Admission(recording, self._findings, healths, _anchors_of(batch.events), doubted)
        for refused in batch.refused:
            admission.quarantine(*refused)
        for birth in batch.births:
            _store_birth(recording, birth)
        by_epoch: dict[EpochKey, list[tuple[Event, Verdict]]] = {}
        for event, where in batch.events:
            epoch = (event.site, event.agent, event.epoch)
            judged = by_epoch.pop(epoch, [])
            judged.append((event, admission.admit(event, where)))
            by_epoch[epoch] = judged  # the epoch heard last is answered last, and its answer stays retained
        acks = [
            ((site, agent), answer(admission.held(site, agent), judged, healths.get((site, agent))))
            for (site, agent, _), judged in by_epoch.items()
        ]
        verified: dict[AgentKey, Position] = {}
        for key, health in batch.healths.items():
            reset = demand_reset(admission.held(*key), health)
            if reset is not None:
                acks.append((key, reset))
            elif health.acked is not None:
                verified[key] = health.acked
        return _Result(admission.outcome, acks, verified)

    def _take_over(self, outcome: Outcome) -> None:
        """What the committed transaction found is so."""
        now = self._clock.monotonic_ms()
        self.counters.admitted += outcome.admitted
        self.counters.duplicates += outcome.duplicates
        self.counters.dropped += outcome.dropped
        self.counters.conflicts += outcome.conflicts
        self._seen_ms.update((subject, now) for subject in outcome.seen if subject.rule in QUIET_MS)
        for key, seq in outcome.reached.items():
            pending = self._holes.get(key)
            if pending is not None and seq >= pending[0].from_seq:
                del self._holes[key]
            self._presence.reached(key, seq)
        for key in [key for key in self._holes if key[:2] in outcome.whole]:
            del self._holes[key]
        for key, lost in outcome.holes.items():
            self._holes.setdefault(key, (lost, now))

    def _promise(self, key: AgentKey, ack: Ack) -> None:
        if ack.reset:
            self.counters.resets += 1
        elif ack.position is not None:
            self._promised[key] = ack.position
        self._intake.publish_retained(topic(*key, Channel.ACK), encode_status(ack))

    def _doubted(self) -> set[AgentKey]:
        """Agents whose identity was in doubt less than ten minutes ago; after a restart, since the restart."""
        now = self._clock.monotonic_ms()
        return {
            (subject.site, subject.agent)
            for subject in self._open_subjects()
            if subject.rule is GatewayRule.IDENTITY_CONFLICT
            and subject.site is not None
            and subject.agent is not None
            and now - self._last_seen_ms(subject) < DOUBT_MS
        }

    def _open_subjects(self) -> list[Subject]:
        return [subject for subject in self._findings.adopted_subjects() if subject.rule in QUIET_MS]

    def _last_seen_ms(self, subject: Subject) -> int:
        return self._seen_ms.get(subject, self._started_ms)


def _anchors_of(events: Sequence[tuple[Event, str]]) -> Mapping[BootKey, Anchor]:
    """The first synchronised event of each boot in a batch: it tells the time of those before it, too."""
    anchors: dict[BootKey, Anchor] = {}
    for event, _ in events:
        key = (event.site, event.agent, event.boot)
        if key not in anchors and (anchor := anchor_of(event)) is not None:
            anchors[key] = anchor
    return anchors


def _store_birth(recording: Recording, birth: AgentModelled | MachineModelled | MachineRemoved) -> None:
    """Journal a birth certificate that changed, and the machines that it no longer names."""
    site, agent = birth.site, birth.agent
    match birth:
        case AgentModelled(model=model):
            if recording.model_digest(site, agent, None) == agent_digest(model):
                return
            recording.append(birth)
            named = model["machines"]
            assert isinstance(named, list), "read_agent_birth checked it"
            for machine in recording.modelled_machines(site, agent):
                if machine not in named:
                    recording.append(MachineRemoved(site, agent, machine))
        case MachineModelled(machine=machine, model=model):
            if recording.model_digest(site, agent, machine) != machine_digest(model):
                recording.append(birth)
        case MachineRemoved(machine=machine):
            if recording.model_digest(site, agent, machine) is not None:
                recording.append(birth)
