"""One event into the journal, with everything that it shows: gaps, doubts, what a report heals.

Works inside one transaction; what must be remembered only if that commits is collected in `Outcome`, for the caller to
take over afterwards. `domain.stream` judges, `domain.reconcile` heals, this module writes down what they say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from edge_agent.wire.canonical_form import INTEGER_MAX
from edge_agent.wire.event import (
    Basis,
    ClockState,
    Event,
    EventKind,
    Json,
    Observation,
    OpenOccurrence,
    OutboxOverflow,
    Position,
    Priority,
    StateReport,
    Unrecognised,
    ViolationChanged,
    ViolationRaised,
)
from edge_agent.wire.status import Health
from gateway.domain.findings import OpenFindings, Subject, raise_finding
from gateway.domain.instants import iso_utc
from gateway.domain.journal import (
    EdgeEvent,
    FindingCleared,
    GapClosed,
    GapFound,
    GatewayRule,
    Mark,
    Quarantined,
    ReconciledChange,
    ReconciledClear,
    ReconciledRaise,
)
from gateway.domain.occurred import Anchor, is_late, occurred_at, undated_of
from gateway.domain.reconcile import Change, Clear, OpenHere, Raise, reconcile
from gateway.domain.stream import Ahead, Conflict, Duplicate, Late, Lost, Next, Verdict, judge
from gateway.ports import OpenRow, Recording

AgentKey: TypeAlias = tuple[str, str]
"""Site and agent."""

EpochKey: TypeAlias = tuple[str, str, str]
"""Site, agent and epoch."""

BootKey: TypeAlias = tuple[str, str, str]
"""Site, agent and boot."""


@dataclass(slots=True)
class Outcome:
    """What one transaction found.

    `holes`: the hole before an event that was dropped; `reached`: how far each epoch came, stated losses included;
    `whole`: agents whose complete report was reached in order, so that no hole of theirs will fill any more;
    `seen`: findings that were seen (again).
    """

    admitted: int = 0
    duplicates: int = 0
    dropped: int = 0
    conflicts: int = 0
    holes: dict[EpochKey, Lost] = field(default_factory=dict)
    reached: dict[EpochKey, int] = field(default_factory=dict)
    whole: set[AgentKey] = field(default_factory=set)
    seen: set[Subject] = field(default_factory=set)


class Held:
    """`domain.stream.Holdings` of one agent over a `Recording`."""

    def __init__(self, recording: Recording, site: str, agent: str) -> None:
        self._recording, self._site, self._agent = recording, site, agent

    def hash_at(self, epoch: str, seq: int) -> str | None:
        """The hash of an event that is held, or None."""
        last = self.last(epoch)
        if last is None or seq > last.seq:
            return None
        if seq == last.seq:
            return last.hash
        found = self._recording.find_event(self._site, self._agent, epoch, seq)
        return None if found is None else found[0]

    def last(self, epoch: str) -> Position | None:
        """The last event held of one epoch, or None."""
        return self._recording.last_held(self._site, self._agent, epoch)

    def newest(self) -> Position | None:
        """The event of this agent that was journaled last, or None."""
        return self._recording.newest_held(self._site, self._agent)

    def latest_epoch(self) -> str | None:
        """The epoch of this agent that began last here, or None."""
        return self._recording.latest_epoch(self._site, self._agent)

    def is_refused(self, position: Position) -> bool:
        """Whether this very event lies in quarantine."""
        return self._recording.is_refused(self._site, self._agent, position)

    def find_hash(self, digest: str) -> Position | None:
        """The event held with this hash, or None."""
        return self._recording.find_hash(self._site, self._agent, digest)


class Admission:
    """The events of one transaction. `doubted`: agents whose identity is in doubt, for whom nothing is reconciled."""

    def __init__(
        self,
        recording: Recording,
        findings: OpenFindings,
        healths: Mapping[AgentKey, Health],
        anchors: Mapping[BootKey, Anchor],
        doubted: Collection[AgentKey],
    ) -> None:
        self._recording = recording
        self._received_at = iso_utc(recording.now_ms)
        self._findings = findings
        self._healths = healths
        self._anchors = anchors
        self._doubted = set(doubted)
        self._held: dict[AgentKey, Held] = {}
        self._gaps: dict[AgentKey, list[GapFound]] = {}
        self.outcome = Outcome()

    def held(self, site: str, agent: str) -> Held:
        """What is held of one agent, this transaction included."""
        if (site, agent) not in self._held:
            self._held[site, agent] = Held(self._recording, site, agent)
        return self._held[site, agent]

    def admit(self, event: Event, topic: str) -> Verdict:
        """Judge one event and write down what follows."""
        key = (event.site, event.agent)
        verdict = judge(event, self.held(*key), self._healths.get(key))
        match verdict:
            case Next():
                self._take(event, verdict)
            case Duplicate():
                self.outcome.duplicates += 1
            case Conflict(held_hash=held_hash, lost=lost):
                reason = f"{event.epoch}/{event.seq} is held with the hash {held_hash}"
                self._refuse(event, topic, GatewayRule.EVIDENCE_CONFLICT, reason, lost)
            case Late():
                reason = f"{event.epoch}/{event.seq} lies in a gap that was final"
                self._refuse(event, topic, GatewayRule.QUARANTINE, reason)
            case Ahead(missing=missing):
                self.outcome.dropped += 1
                if missing is not None:
                    self.outcome.holes[*key, missing.epoch] = missing
        return verdict

    def quarantine(self, topic: str, payload: bytes, reason: str, key: AgentKey | None) -> None:
        """Keep a refused payload raw, and say so."""
        site, agent = key or (None, None)
        number = self._recording.put_in_quarantine(topic, payload, reason)
        self._recording.append(Quarantined(number, topic[:256], site, agent, reason))
        self.raise_once(
            Subject(GatewayRule.QUARANTINE, site, agent), {"reason": reason, "topic": topic[:256]}
        )

    def raise_once(
        self, subject: Subject, detail: Mapping[str, Json], priority: Priority | None = None
    ) -> None:
        """Open a finding, unless it is open already; `priority` where it is not the rule's own."""
        self.outcome.seen.add(subject)
        if self._findings.find(subject) is None:
            position = self._recording.next_position
            self._recording.append(raise_finding(subject, position, self._received_at, detail, priority))

    def clear(self, subject: Subject, reason: str) -> None:
        """End a finding, if it is open."""
        found = self._findings.find(subject)
        if found is not None:
            self._recording.append(FindingCleared(found.occurrence, self._received_at, reason))

    def find_gap(self, key: AgentKey, lost: Lost, *, final: bool) -> None:
        """State a gap and alarm it; a hole that is open already is not stated twice."""
        known = [gap for gap in self._open_gaps(key) if gap.epoch == lost.epoch]
        if not final and known:
            return
        gap = f"gap-{self._recording.next_position}"
        entry = GapFound(*key, gap, lost.epoch, lost.from_seq, lost.to_seq, final, lost.reason)
        self._recording.append(entry)
        detail: dict[str, Json] = {"epoch": lost.epoch, "from_seq": lost.from_seq, "to_seq": lost.to_seq}
        detail |= {"final": final, "reason": lost.reason}
        self.raise_once(Subject(GatewayRule.STREAM_GAP, *key, gap), detail)
        self._gaps.pop(key, None)

    def _take(self, event: Event, verdict: Next) -> None:
        key = (event.site, event.agent)
        for lost in verdict.lost:
            self._state_lost(key, lost)
            self._reach((*key, lost.epoch), lost.to_seq or INTEGER_MAX)
        marks = (Mark.CHAIN_BROKEN,) if verdict.chain_broken else ()
        if isinstance(event.body, Unrecognised):
            marks = (*marks, Mark.UNRECOGNISED)
        occurred = self._moment(event)
        if self._is_old_news(event, occurred):
            marks = (*marks, Mark.LATE)
        self._recording.append(EdgeEvent(event, occurred, marks))
        self.outcome.admitted += 1
        self._reach((*key, event.epoch), event.seq)
        self._note_doubts(event, verdict)
        self._close_filled(event)
        if isinstance(event.body, StateReport) and event.body.part == event.body.parts:
            self._heal(event, event.body.parts)

    def _state_lost(self, key: AgentKey, lost: Lost) -> None:
        self._close_as_final(key)
        self.find_gap(key, lost, final=True)

    def _reach(self, epoch: EpochKey, seq: int) -> None:
        self.outcome.reached[epoch] = seq
        self.outcome.holes.pop(epoch, None)

    def _moment(self, event: Event) -> str:
        anchor = None if event.clock is ClockState.SYNCED else self._anchor(event)
        return occurred_at(event, anchor, self._received_at)

    def _is_old_news(self, event: Event, occurred: str) -> bool:
        """Whether a raise whose time is not known is late all the same, by the clock of its agent's newest beat."""
        if not isinstance(event.body, ViolationRaised | ViolationChanged):
            return False
        health = self._healths.get((event.site, event.agent))
        if health is None or health.at is None or undated_of(event, occurred, self._received_at) is None:
            return False
        return is_late(event.at, health.at)

    def _anchor(self, event: Event) -> Anchor | None:
        known = self._anchors.get((event.site, event.agent, event.boot))
        return known or self._recording.boot_anchor(event.site, event.agent, event.boot)

    def _note_doubts(self, event: Event, verdict: Next) -> None:
        key = (event.site, event.agent)
        where: dict[str, Json] = {"epoch": event.epoch, "seq": event.seq}
        if verdict.chain_broken or verdict.contradicts:
            what = (
                "its link does not fit"
                if verdict.chain_broken
                else "it takes up after an event that is another here"
            )
            self.raise_once(Subject(GatewayRule.EVIDENCE_CONFLICT, *key), {**where, "reason": what})
        if isinstance(event.body, Unrecognised):
            detail: dict[str, Json] = {**where, "reason": f"journaled, not understood: {event.body.reason}"}
            if event.kind == EventKind.VIOLATION_RAISED:  # which one cannot be told: it counts as the worst
                thing = f"{event.epoch}/{event.seq}"
                self.raise_once(Subject(GatewayRule.QUARANTINE, *key, thing), detail, Priority.P1)
            else:
                self.raise_once(Subject(GatewayRule.QUARANTINE, *key), detail)
        lost = _told_loss(event)
        if lost is not None:
            self.raise_once(Subject(GatewayRule.STORE_DAMAGED, *key), {**where, **lost})
        if verdict.forked:
            self.raise_once(Subject(GatewayRule.EPOCH_FORK, *key), where)
        if verdict.second_agent:
            self._doubted.add(key)
            self.raise_once(Subject(GatewayRule.IDENTITY_CONFLICT, *key), where)

    def _refuse(
        self, event: Event, topic: str, rule: GatewayRule, reason: str, lost: tuple[Lost, ...] = ()
    ) -> None:
        """An event that gets no place is kept raw; a raise in it is alarmed all the same (§3.4)."""
        key = (event.site, event.agent)
        self.outcome.conflicts += 1
        if self._recording.is_refused(*key, event.position):
            return  # it came again
        for item in lost:
            self._state_lost(key, item)
        self._recording.note_refused(*key, event.position)
        number = self._recording.put_in_quarantine(topic, event.payload, reason)
        self._recording.append(Quarantined(number, topic[:256], *key, reason))
        self.raise_once(Subject(rule, *key), {"epoch": event.epoch, "seq": event.seq, "reason": reason})
        if (
            isinstance(event.body, ViolationRaised)
            and self._recording.find_violation(event.body.occurrence) is None
        ):
            listed = _as_listed(event.body)
            self._recording.append(ReconciledRaise(*key, listed.occurrence, listed))

    def _open_gaps(self, key: AgentKey) -> list[GapFound]:
        if key not in self._gaps:
            self._gaps[key] = list(self._recording.open_gaps(*key))
        return self._gaps[key]

    def _close_filled(self, event: Event) -> None:
        key = (event.site, event.agent)
        for gap in self._open_gaps(key):
            if gap.epoch == event.epoch and gap.to_seq is not None and event.seq >= gap.to_seq:
                self._recording.append(GapClosed(*key, gap.gap, filled=True))
                self.clear(Subject(GatewayRule.STREAM_GAP, *key, gap.gap), "filled")
                self._gaps.pop(key, None)

    def _close_as_final(self, key: AgentKey) -> None:
        """What is lost for good will not fill: its alarm waits for the next complete report."""
        for gap in self._open_gaps(key):
            self._recording.append(GapClosed(*key, gap.gap, filled=False))
        self._gaps.pop(key, None)

    def _heal(self, last_part: Event, parts: int) -> None:
        """After the last part of a state report: reconcile, and clear what only waited for it (§3.3, §3.7)."""
        key = (last_part.site, last_part.agent)
        reports = self._collect_parts(last_part, parts)
        if reports is None or key in self._doubted:
            return
        # All that this store holds from before is held here: what is missing still is of a store that is no more.
        self._close_as_final(key)
        self.outcome.whole.add(key)
        began = self._recording.store_began(*key, last_part.epoch)
        here = [_open_here(row, began) for row in self._recording.open_occurrences(*key)]
        for healing in reconcile(reports, here, self._recording.find_violation):
            match healing:
                case Raise(occurrence=occurrence, listed=listed, continues=continues):
                    self._recording.append(ReconciledRaise(*key, occurrence, listed, continues))
                case Change(occurrence=occurrence, listed=listed):
                    self._recording.append(ReconciledChange(*key, occurrence, listed))
                case Clear(occurrence=occurrence, continued_by=heir):
                    self._recording.append(ReconciledClear(*key, occurrence, self._moment(last_part), heir))
        for finding in self._findings.open_of(GatewayRule.STREAM_GAP, *key):
            gap = str(finding.detail.get("thing", ""))
            self.clear(Subject(GatewayRule.STREAM_GAP, *key, gap), "state report")
        self.clear(Subject(GatewayRule.EPOCH_FORK, *key), "state report")

    def _collect_parts(self, last_part: Event, parts: int) -> list[StateReport] | None:
        """All parts of a report, which are consecutive events, or None where one is missing."""
        reports: list[StateReport] = []
        for part in range(1, parts):
            event = self._recording.load_event(
                last_part.site, last_part.agent, last_part.epoch, last_part.seq - parts + part
            )
            body = None if event is None else event.body
            if not isinstance(body, StateReport) or (body.part, body.parts) != (part, parts):
                return None
            reports.append(body)
        assert isinstance(last_part.body, StateReport)
        return [*reports, last_part.body]


def _as_listed(raised: ViolationRaised) -> OpenOccurrence:
    return OpenOccurrence(
        raised.occurrence,
        raised.rule,
        raised.machine,
        raised.guard,
        raised.device,
        raised.priority,
        Basis(raised.basis),
        raised.since,
        raised.hidden_by,
    )


def _open_here(row: OpenRow, store_began: int) -> OpenHere:
    return OpenHere(
        row.occurrence,
        row.rule,
        row.machine,
        row.guard,
        row.device,
        row.priority,
        row.basis,
        row.hidden_by,
        is_of_older_store=row.raised_position < store_began,
    )


def _told_loss(event: Event) -> Mapping[str, Json] | None:
    """What the agent says was lost at its own place: events that found no room, or a store that was harmed."""
    match event.body:
        case OutboxOverflow(dropped, since, until):
            return {"dropped": dropped, "lost_since": since, "lost_until": until}
        case Observation("store_damaged", detail):
            return {"damage": dict(detail)}
        case _:
            return None
